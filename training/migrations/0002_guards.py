"""A recipe never changes, whoever asks: runs point at it, and what they were trained on must stay readable."""

from django.db import migrations

REFUSE = """
CREATE FUNCTION training_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% rows are immutable: a recipe never changes', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER recipe_immutable BEFORE UPDATE ON training_recipe
    FOR EACH ROW EXECUTE FUNCTION training_refuse_change();
CREATE TRIGGER recipe_source_immutable BEFORE UPDATE ON training_recipesource
    FOR EACH ROW EXECUTE FUNCTION training_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial")]

    operations = [migrations.RunSQL(REFUSE, "DROP FUNCTION training_refuse_change CASCADE;")]
