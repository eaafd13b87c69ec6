//! The filter language of jq.

use jaq_core::{
    Ctx, Vars, data,
    load::{Arena, File, Loader},
    unwrap_valr,
};
use jaq_json::{Val, read};
use serde_json::Value;

use crate::failed::Failed;

/// Characters of an error: one line of a terminal.
const LONGEST_ERROR: usize = 100;

/// The results of a program for a value.
pub(crate) fn run(program: &str, value: &Value) -> Result<Vec<Value>, Failed> {
    let wrong = |what: &str| Failed::usage(format!("--jq {program}: {what}"));
    let input =
        read::parse_single(value.to_string().as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    let arena = Arena::default();
    let loader = Loader::new(jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs()));
    let modules = loader.load(&arena, File { code: program, path: () });
    let modules = modules.map_err(|_| wrong("it cannot be parsed as a program of jq"))?;
    let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let compiled = jaq_core::Compiler::default().with_funs(functions).compile(modules);
    let filter = compiled.map_err(|_| wrong("it uses what is not defined"))?;
    let context = Ctx::<data::JustLut<Val>>::new(&filter.lut, Vars::new([]));
    filter
        .id
        .run((context, input))
        .map(|result| {
            let result =
                unwrap_valr(result).map_err(|error| Failed::other(format!("--jq: {}", brief(&error))))?;
            serde_json::from_str(&result.to_string()).map_err(|error| Failed::other(format!("--jq: {error}")))
        })
        .collect()
}

/// An error without most of the value that it quotes, which may be a whole list.
fn brief(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    match text.char_indices().nth(LONGEST_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_program_gives_its_results_and_a_wrong_one_is_refused() {
        let shares = json!([{"name": "a", "ready": true}, {"name": "b", "ready": false}]);
        let names = run("map(select(.ready | not)) | .[].name", &shares).unwrap();
        assert_eq!(names, [json!("b")]);
        assert!(matches!(run(".[", &shares), Err(Failed::Usage(_))));
        assert!(matches!(run("colour", &shares), Err(Failed::Usage(_))));
        assert!(matches!(run(".name", &shares), Err(Failed::Other(_))));
    }

    #[test]
    fn an_error_does_not_quote_a_whole_list() {
        let all: Vec<_> = (0..1000).map(|n| json!({ "name": n })).collect();
        let Err(failed) = run(".name", &json!(all)) else { panic!("a list has a name") };
        let text = failed.to_string();
        assert!(text.starts_with("--jq: cannot index [{") && text.ends_with('…'), "{text}");
        assert!(text.chars().count() <= "--jq: ".len() + LONGEST_ERROR + 1, "{text}");
    }
}
