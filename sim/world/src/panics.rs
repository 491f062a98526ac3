//! Panics as they are reported: host, task, message and place.

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    panic::{self, Location},
    sync::Once,
};

/// Panic of a host's task or compute job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// Virtual time, ns.
    pub at_ns: u64,
    /// Name of the host.
    pub host: String,
    /// Name of the task; `main` for the host's first one, `compute` for a job.
    pub task: &'static str,
    /// Message of the panic.
    pub message: String,
    /// File and line.
    pub location: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, task, message, location, .. } = self;
        write!(f, "{host} panicked in its task {task:?}, at {location}: {message}")
    }
}

/// Name of a host's first task.
pub(crate) const MAIN: &str = "main";
/// Name of every compute job.
pub(crate) const COMPUTE: &str = "compute";

thread_local! {
    /// Location of the newest panic of this thread, which its payload does not say.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Remembers the location of each panic from now on.
pub(crate) fn remember_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            LOCATION.set(info.location().map(shown));
            print(info);
        }));
    });
}

/// Returns file and line, the same on every machine: of a file outside of the workspace only the
/// end of its path.
fn shown(location: &Location<'_>) -> String {
    const PARTS_MAX: usize = 4;
    let (file, line) = (location.file(), location.line());
    let start = file.rmatch_indices('/').nth(PARTS_MAX - 1).map_or(0, |(at, _)| at + 1);
    let file = if file.starts_with('/') { &file[start..] } else { file };
    format!("{file}:{line}")
}

/// Returns a panic's message and its location.
pub(crate) fn describe(panic: &(dyn Any + Send)) -> (String, String) {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref().copied()).unwrap_or("no message");
    let location = LOCATION.take().unwrap_or_else(|| "an unknown place".to_owned());
    (message.to_owned(), location)
}
