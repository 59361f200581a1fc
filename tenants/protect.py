"""SQL that protects history: rows that may be written once and never changed. Used by migrations."""

FUNCTION = """
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append only', tg_table_name using errcode = 'SBX02';
end $$;
"""


def append_only(table: str) -> str:
    """UPDATE and DELETE on `table` fail for every role, the owner included, until a migration says otherwise."""
    return f"""
drop trigger if exists {table}_append_only on {table};
create trigger {table}_append_only before update or delete on {table} for each row execute function refuse_change();
"""
