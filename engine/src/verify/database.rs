//! The database itself, below what the tables say: are its pages what SQLite made of them?
//!
//! SQLite checks that: quickly (every page that belongs to a table or an index), or wholly, where each
//! entry of an index is looked for in its table and the other way round. Beside a server it is asked for
//! one table at a time, so that its log can start over in between (INV-13); only at rest also for pages
//! that belong to nothing. What seems wrong is asked again: a server that began meanwhile changes pages.

use rusqlite::{Connection, ErrorCode, Row};

use super::{
    Depth, VerifyError,
    local::{Local, Stillness},
};
use crate::{core::database, state::catalogue::Failure};

impl Local<'_> {
    /// Has SQLite look at its file.
    pub(super) fn pages(&mut self, depth: Depth) -> Result<(), VerifyError> {
        let check = match depth {
            Depth::Deep => "integrity_check",
            Depth::Local | Depth::Remote | Depth::Both => "quick_check",
        };
        match self.stillness {
            Stillness::Held => self.twice_asked(|conn| complaints(conn, check, None)),
            Stillness::Open => {
                let tables = match self.ask(tables)? {
                    Ok(tables) => tables,
                    Err(bad) => {
                        self.found.add(
                            "database",
                            database(self.config).display(),
                            bad.to_string(),
                        );
                        return Ok(());
                    }
                };
                tables.iter().try_for_each(|table| {
                    self.twice_asked(|conn| complaints(conn, check, Some(table)))
                })
            }
        }
    }

    fn twice_asked(
        &mut self,
        question: impl Fn(&Connection) -> Result<Vec<String>, Failure>,
    ) -> Result<(), VerifyError> {
        if self.sure(&question)?.is_empty() {
            return Ok(());
        }
        for complaint in self.sure(&question)? {
            self.found.add("database", database(self.config).display(), complaint);
        }
        Ok(())
    }
}

fn tables(conn: &Connection) -> Result<Vec<String>, Failure> {
    let mut query = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names = query.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// What SQLite says is wrong, with a table and its indexes or with all: the first hundred things.
fn complaints(conn: &Connection, check: &str, table: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut said = Vec::new();
    let take = |row: &Row<'_>| {
        let text: String = row.get(0)?;
        let lines = text.lines().filter(|line| *line != "ok" && !line.starts_with("***"));
        said.extend(lines.map(str::to_owned));
        Ok(())
    };
    let asked = match table {
        Some(table) => conn.pragma(None, check, table, take),
        None => conn.pragma_query(None, check, take),
    };
    match asked {
        Ok(()) => Ok(said),
        // It may give up where it finds too much.
        Err(error) if is_damage(&error) => {
            said.push(error.to_string());
            Ok(said)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
