"""What no program may do to the record of human judgment, nor to a frozen dataset: the database itself refuses it."""

from django.db import migrations

REFUSE = """
CREATE FUNCTION curation_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A test database is emptied between tests. A test of this very guard switches it on.
    IF TG_OP = 'TRUNCATE' AND current_database() LIKE 'test\\_%'
       AND coalesce(current_setting('atelier.guard_truncate', true), '') <> 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
"""

GUARDED = ["curation_judgment", "curation_datasetversion", "curation_datasetentry"]

# A judgment belongs to the item and rater of its assignment, and supersedes only within its own chain.
CHAIN = """
CREATE FUNCTION curation_check_judgment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM curation_assignment a
                   WHERE a.id = NEW.assignment_id AND a.item_id = NEW.item_id AND a.rater_id = NEW.rater_id) THEN
        RAISE EXCEPTION 'judgment % does not fit its assignment', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.supersedes_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM curation_judgment j WHERE j.id = NEW.supersedes_id AND j.assignment_id = NEW.assignment_id) THEN
        RAISE EXCEPTION 'judgment % supersedes one of another assignment', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER judgment_fits BEFORE INSERT ON curation_judgment
    FOR EACH ROW EXECUTE FUNCTION curation_check_judgment();
"""

# A version says how many entries it has. No entry fits beyond them, positions are unique, and entries cannot be removed:
# so once a version is complete, which is checked at the end of the transaction that freezes it, nothing can join it.
COMPLETE = """
CREATE FUNCTION curation_check_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.position >= (SELECT entry_count FROM curation_datasetversion WHERE id = NEW.version_id) THEN
        RAISE EXCEPTION 'dataset version % is frozen', NEW.version_id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER dataset_entry_fits BEFORE INSERT ON curation_datasetentry
    FOR EACH ROW EXECUTE FUNCTION curation_check_entry();

CREATE FUNCTION curation_check_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM curation_datasetentry WHERE version_id = NEW.id) <> NEW.entry_count THEN
        RAISE EXCEPTION 'dataset version % does not have its % entries', NEW.id, NEW.entry_count
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER dataset_version_complete AFTER INSERT ON curation_datasetversion
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION curation_check_version();
"""


def guard(table):
    return (
        f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION curation_refuse();"
        f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();"
    )


FORWARD = REFUSE + "".join(guard(table) for table in GUARDED) + CHAIN + COMPLETE
BACKWARD = "DROP FUNCTION curation_refuse, curation_check_judgment, curation_check_entry, curation_check_version CASCADE;"


class Migration(migrations.Migration):
    dependencies = [("curation", "0001_initial")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
