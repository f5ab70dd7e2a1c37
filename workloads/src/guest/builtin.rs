//! The traces that ship with the program (`docs/TRACES.md` says how they were made).

use std::io::Cursor;

use super::error::TraceError;
use super::input::TraceInput;
use super::trace::{Trace, TraceOptions};

/// A trace that ships with the program.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinTrace {
    /// The name that scenario files use.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// The file as it is in the repository.
    pub packed: &'static [u8],
}

/// All of them.
pub const BUILTIN_TRACES: &[BuiltinTrace] = &[BuiltinTrace {
    name: "sqlite3-insert-select",
    about: "sqlite3 in memory: rows inserted with an index, then an indexed query; 600,000 data accesses",
    packed: include_bytes!("../../traces/sqlite3-insert-select.lackey.zst"),
}];

/// Loads the built-in trace of a name.
///
/// # Errors
/// There is none of that name.
pub fn load(name: &str, options: TraceOptions) -> Result<Trace, TraceError> {
    let Some(found) = BUILTIN_TRACES.iter().find(|trace| trace.name == name) else {
        let known: Vec<&str> = BUILTIN_TRACES.iter().map(|trace| trace.name).collect();
        return Err(TraceError::UnknownBuiltin { name: name.to_owned(), known: known.join(", ") });
    };
    let input = TraceInput::from_reader(format!("{name} (built in)"), Box::new(Cursor::new(found.packed)))?;
    Trace::from_input(input, options)
}
