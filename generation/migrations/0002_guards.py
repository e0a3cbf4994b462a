"""The database itself refuses changes to what is immutable: prompts of a set, model versions, samples."""

from django.db import migrations

REFUSE = """
CREATE FUNCTION generation_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% rows are immutable', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE FUNCTION generation_keep_model() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A name and a note are words about a version; everything else is the version.
    IF to_jsonb(NEW) - 'name' - 'note' IS DISTINCT FROM to_jsonb(OLD) - 'name' - 'note' THEN
        RAISE EXCEPTION 'model versions are immutable' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER prompt_set_immutable BEFORE UPDATE ON generation_promptset
    FOR EACH ROW EXECUTE FUNCTION generation_refuse_change();
CREATE TRIGGER prompt_immutable BEFORE UPDATE OR DELETE ON generation_prompt
    FOR EACH ROW EXECUTE FUNCTION generation_refuse_change();
CREATE TRIGGER sample_immutable BEFORE UPDATE ON generation_sample
    FOR EACH ROW EXECUTE FUNCTION generation_refuse_change();
CREATE TRIGGER model_promotion_immutable BEFORE UPDATE OR DELETE ON generation_modelpromotion
    FOR EACH ROW EXECUTE FUNCTION generation_refuse_change();
CREATE TRIGGER model_version_immutable BEFORE UPDATE ON generation_modelversion
    FOR EACH ROW EXECUTE FUNCTION generation_keep_model();
"""

ALLOW = """
DROP TRIGGER prompt_set_immutable ON generation_promptset;
DROP TRIGGER prompt_immutable ON generation_prompt;
DROP TRIGGER sample_immutable ON generation_sample;
DROP TRIGGER model_promotion_immutable ON generation_modelpromotion;
DROP TRIGGER model_version_immutable ON generation_modelversion;
DROP FUNCTION generation_refuse_change();
DROP FUNCTION generation_keep_model();
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0001_initial")]

    operations = [migrations.RunSQL(REFUSE, ALLOW)]
