"""A version's licence: words about it that may be put right, like its name and its note."""

from django.db import migrations, models

KEEP = """
CREATE OR REPLACE FUNCTION generation_keep_model() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A name, a note and a licence are words about a version; everything else is the version.
    IF to_jsonb(NEW) - 'name' - 'note' - 'licence' IS DISTINCT FROM to_jsonb(OLD) - 'name' - 'note' - 'licence' THEN
        RAISE EXCEPTION 'model versions are immutable' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
"""
BEFORE = KEEP.replace(" - 'licence'", "").replace("A name, a note and a licence", "A name and a note")


class Migration(migrations.Migration):
    dependencies = [("generation", "0004_combined_versions")]

    operations = [
        migrations.AddField(
            model_name="modelversion",
            name="licence",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="What people say of it, an SPDX identifier where there is one; empty: not known.",
                max_length=200,
            ),
        ),
        migrations.RunSQL(KEEP, BEFORE),
    ]
