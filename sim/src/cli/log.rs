//! `log`: the event log of one run, line by line, and last its digest.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use dst_world::Detail;

pub(super) fn run(log: &super::Log) -> Result<ExitCode, String> {
    let plan = super::plan(&log.which)?;
    let detail = if log.segments { Detail::Segments } else { Detail::Events };
    let report = super::once::watched(&plan, detail, log.which.limit, super::once::Told::Text)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let told = report.log.iter().try_for_each(|line| writeln!(out, "{line}"));
    let told = told.and_then(|()| writeln!(out, r#"{{"digest":"{}"}}"#, report.digest));
    match told.and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => {}
        Err(why) => return Err(format!("standard output: {why}")),
        Ok(()) => {}
    }
    Ok(report.verdict.into())
}
