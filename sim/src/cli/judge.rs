//! `judge`: the verdict about a history that another program recorded.

use std::process::ExitCode;

use chatchat_sim::recorded::Recorded;

use super::out;

pub(super) fn run(asked: &super::Judge) -> Result<ExitCode, String> {
    let recorded = Recorded::load(&asked.history).map_err(|why| why.to_string())?;
    let name =
        asked.history.file_name().map_or_else(String::new, |name| name.display().to_string());
    let (plan, report) = recorded.judge(&name);
    out::text(format_args!("{}", report.block(&plan, None)));
    Ok(report.verdict.into())
}
