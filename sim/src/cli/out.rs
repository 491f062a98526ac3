//! Output of the commands on stdout. A reader that has seen enough, such as `head`, ends nothing.

use std::{
    fmt,
    io::{self, Write},
};

/// Writes text as it is.
pub(super) fn text(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("chatchat-sim: stdout cannot be written: {why}");
        }
        _ => {}
    }
}

/// Writes text and ends its line.
pub(super) fn line(line: fmt::Arguments<'_>) {
    text(format_args!("{line}\n"));
}
