//! `replay`: the same run again, as a page that needs nothing but a browser.

mod data;

use std::{fs, process::ExitCode};

use dst_world::Detail;

use super::{
    once::{Told, real_now, watched},
    out,
};

/// The page; `/*DATA*/` stands where the run goes.
const PAGE: &str = include_str!("page.html");

pub(super) fn run(replay: &super::Replay) -> Result<ExitCode, String> {
    let plan = super::plan(&replay.which)?;
    let start = real_now();
    let report = watched(&plan, Detail::Segments, replay.which.limit, Told::Text)?;
    out::text(format_args!("{}", report.block(&plan, Some(start.elapsed()))));
    let page = page(&data::Run::new(&plan, &report)).map_err(|why| why.to_string())?;
    fs::write(&replay.html, page).map_err(|why| format!("{}: {why}", replay.html.display()))?;
    out::line(format_args!("page     {}", replay.html.display()));
    Ok(report.verdict.into())
}

fn page(run: &data::Run) -> Result<String, serde_json::Error> {
    // What people wrote must not end the element that holds it.
    let data = serde_json::to_string(run)?.replace("</", "<\\/").replace("<!--", "<\\u0021--");
    Ok(PAGE.replace("/*DATA*/", &data))
}

#[cfg(test)]
mod tests {
    use chatchat_scenarios::{plan::Plan, story::Story};
    use chatchat_sim::verdict::Report;

    use super::*;

    #[test]
    fn text_of_a_person_cannot_end_the_data_of_the_page() {
        let story = "about = \"a test\"\nduration = \"5s\"\n[cluster]\nmasters = 1\nworkers = 1\n";
        let mut plan = Plan::expand(&Story::parse("test", story).expect("a story"), 7);
        plan.story = "</script><script>alert(1)<!--".to_owned();
        let run = data::Run::new(&plan, &Report::default());
        let page = page(&run).expect("plain data");
        assert_eq!(page.matches("</script>").count(), PAGE.matches("</script>").count());
        assert!(!page.contains("alert(1)<!--"));
        assert!(!page.contains("/*DATA*/"));
    }

    #[test]
    fn page_asks_no_other_machine_for_anything() {
        for word in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
