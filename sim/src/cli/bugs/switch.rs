//! Bugs behind switches: one program that holds many bugs, of which a variable turns one on.
//!
//! 1. The body of each function that a bug changes is written once as it is and once with each bug,
//!    and the variable [`SWITCH`] chooses. With no bug chosen the program is the one without any, and
//!    says which switches it asks if [`TELL`] is set: a run that never asks for a bug is the same with it.
//! 2. A bug that changes anything outside of functions' bodies cannot stand behind a switch. It needs
//!    a build of its own.

use std::{collections::BTreeMap, ops::Range};

use chatchat_sim::bugs::Bug;
use syn::{Block, ImplItemFn, ItemFn, Signature, spanned::Spanned as _, visit::Visit};

use crate::cli::child::{ASKED, SWITCH, TELL};

/// Function of a file, by the places of its parts.
struct Function {
    body: Range<usize>,
    /// The word `const`: a body that asks a variable cannot stand under it.
    constant: Option<Range<usize>>,
}

/// File with bugs behind switches.
pub(super) struct Switched {
    pub(super) text: String,
    /// Bugs that could not be put behind a switch.
    pub(super) left_out: Vec<Bug>,
}

/// Puts bugs of one file behind switches.
///
/// # Errors
/// A sentence for the person who asked: the file is not Rust, or a bug does not apply to it.
pub(super) fn switched(text: &str, bugs: &[&Bug]) -> Result<Switched, String> {
    let old = functions(text)?;
    let mut bodies: BTreeMap<usize, Vec<(&str, String)>> = BTreeMap::new();
    let mut left_out = Vec::new();
    for bug in bugs {
        let planted = bug.apply(text).map_err(|why| why.to_string())?;
        let new = functions(&planted).map_err(|why| format!("{}: {why}", bug.name))?;
        if rest(text, &old) != rest(&planted, &new) {
            left_out.push((*bug).clone());
            continue;
        }
        for (nth, (old, new)) in old.iter().zip(&new).enumerate() {
            let body = &planted[new.body.clone()];
            if text[old.body.clone()] != *body {
                bodies.entry(nth).or_default().push((&bug.name, body.to_owned()));
            }
        }
    }
    let mut out = text.to_owned();
    // From the end on, so that the places before stay as they are.
    for (nth, planted) in bodies.iter().rev() {
        let Function { body, constant } = &old[*nth];
        let mut choice = String::from("{ ");
        for (name, body) in planted {
            choice.push_str(&format!("if crate::planted({name:?}) {body} else "));
        }
        choice.push_str(&format!("{} }}", &text[body.clone()]));
        out.replace_range(body.clone(), &choice);
        if let Some(constant) = constant {
            out.replace_range(constant.clone(), "");
        }
    }
    Ok(Switched { text: out, left_out })
}

/// Returns the root of the product's library with the function that switches ask.
pub(super) fn with_asked(library: &str) -> String {
    format!(
        "{library}
/// Returns whether a planted bug is turned on.
fn planted(name: &str) -> bool {{
    static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    type Asked = std::sync::Mutex<std::collections::BTreeSet<String>>;
    static ASKED: std::sync::OnceLock<Option<Asked>> = std::sync::OnceLock::new();
    let tells = || std::env::var_os({TELL:?}).map(|_| Asked::default());
    if let Some(Ok(mut asked)) = ASKED.get_or_init(tells).as_ref().map(|asked| asked.lock())
        && !asked.contains(name)
    {{
        asked.insert(name.to_owned());
        eprintln!(\"{ASKED}{{name}}\");
    }}
    CHOSEN.get_or_init(|| std::env::var({SWITCH:?}).unwrap_or_default()) == name
}}
"
    )
}

/// Returns the text without the bodies of its functions.
fn rest(text: &str, functions: &[Function]) -> String {
    let (mut rest, mut from) = (String::new(), 0);
    for function in functions {
        rest.push_str(&text[from..function.body.start]);
        from = function.body.end;
    }
    rest.push_str(&text[from..]);
    rest
}

/// Returns the outermost functions that have a body, in the order of the text.
fn functions(text: &str) -> Result<Vec<Function>, String> {
    let file = syn::parse_file(text).map_err(|why| format!("it does not parse: {why}"))?;
    let mut found = Functions(Vec::new());
    found.visit_file(&file);
    Ok(found.0)
}

/// Collects functions; what stands inside of one belongs to it.
struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &Signature, body: &Block) {
        let constant = signature.constness.map(|word| word.span().byte_range());
        self.0.push(Function { body: body.span().byte_range(), constant });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.add(&item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.add(&item.sig, &item.block);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use chatchat_scenarios::property::Property;
    use chatchat_sim::bugs::root;

    use super::*;

    const TEXT: &str = "const A: u8 = 1;\nimpl X {\n    const fn f(&self) -> u8 {\n        1\n    }\n}\n\
                        fn g() {\n    h();\n}\n";

    fn bug(name: &str, from: &str, to: &str) -> Bug {
        Bug {
            name: name.to_owned(),
            property: Property::G1,
            about: "a test".to_owned(),
            file: "src/x.rs".into(),
            diff: diffy::create_patch(TEXT, &TEXT.replace(from, to)).to_string(),
        }
    }

    #[test]
    fn bodies_stand_behind_switches_and_what_is_no_body_is_left_out() {
        let bugs = [
            bug("one", "        1\n", "        2\n"),
            bug("two", "        1\n", "        3\n"),
            bug("three", "    h();\n", "    i();\n"),
            bug("four", "A: u8 = 1", "A: u8 = 2"),
        ];
        let made = switched(TEXT, &bugs.iter().collect::<Vec<_>>()).expect("it parses");
        insta::assert_snapshot!(made.text, @r#"
        const A: u8 = 1;
        impl X {
             fn f(&self) -> u8 { if crate::planted("one") {
                2
            } else if crate::planted("two") {
                3
            } else {
                1
            } }
        }
        fn g() { if crate::planted("three") {
            i();
        } else {
            h();
        } }
        "#);
        let left_out: Vec<_> = made.left_out.iter().map(|bug| bug.name.as_str()).collect();
        assert_eq!(left_out, ["four"]);
        assert!(switched("fn (", &[]).is_err());
    }

    #[test]
    fn nearly_all_bugs_of_the_tree_stand_behind_switches_in_code_that_parses() {
        let bugs = Bug::all().expect("well-formed");
        let files: BTreeSet<&Path> = bugs.iter().map(|bug| bug.file.as_path()).collect();
        let mut left_out = Vec::new();
        for file in files {
            let of_it: Vec<_> = bugs.iter().filter(|bug| bug.file == file).collect();
            let text = fs::read_to_string(root().join(file)).expect("there");
            let made = switched(&text, &of_it).unwrap_or_else(|why| panic!("{file:?}: {why}"));
            assert!(functions(&made.text).is_ok(), "{}", file.display());
            left_out.extend(made.left_out.into_iter().map(|bug| bug.name));
        }
        assert!(left_out.len() <= bugs.len() / 10, "{left_out:?}");
    }
}
