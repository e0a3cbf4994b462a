"""A recipe stays whole: no row of its table is removed, and none joins it after the transaction that stored it."""

from django.db import migrations

REFUSE = """
CREATE FUNCTION training_refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A test database is emptied between tests. A test of this very guard switches it on.
    IF TG_OP = 'TRUNCATE' AND current_database() LIKE 'test\\_%'
       AND coalesce(current_setting('atelier.guard_truncate', true), '') <> 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% rows are immutable: a recipe never changes', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE FUNCTION training_refuse_late_source() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- now() is when the transaction began, and a recipe is stored together with its rows.
    IF (SELECT created_at FROM training_recipe WHERE id = NEW.recipe_id) < now() THEN
        RAISE EXCEPTION '% rows are immutable: a recipe never changes', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER recipe_source_in_time BEFORE INSERT ON training_recipesource
    FOR EACH ROW EXECUTE FUNCTION training_refuse_late_source();
"""

STAY = """
CREATE TRIGGER {name}_stays BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION training_refuse_removal();
CREATE TRIGGER {name}_stays_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION training_refuse_removal();
"""

FORWARD = (
    REFUSE
    + STAY.format(name="recipe", table="training_recipe")
    + STAY.format(name="recipe_source", table="training_recipesource")
)


class Migration(migrations.Migration):
    dependencies = [("training", "0002_guards")]

    operations = [
        migrations.RunSQL(FORWARD, "DROP FUNCTION training_refuse_removal, training_refuse_late_source CASCADE;")
    ]
