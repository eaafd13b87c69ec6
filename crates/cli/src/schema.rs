//! The flags of a command that writes, made from the API's document: one for each property that can be written.

use std::{fs, io::Read as _, path::Path, sync::LazyLock};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};
use wicketgate_system::private_file::open_to_others;

use crate::{failed::Failed, kind::Kind, say::say};

/// The document that the server of the same version serves.
static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap_or_default());

/// Properties whose flags have other names: those that take a name where the property has an id.
const RENAMED: &[(&str, &str)] = &[
    ("ipsecTunnelId", "tunnel"),
    ("envZId", "env"),
    ("locationId", "location"),
    ("tags", "tag"),
    ("scopes", "scope"),
    ("frontdoorIds", "frontdoor-id"),
    ("quotas", "quota"),
];

/// How a property is written in a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Switch,
    Texts,
    Pairs,
    /// It is read from a file, or from standard input with `-`.
    Secret,
}

/// A property that can be written.
#[derive(Debug)]
pub(crate) struct Property {
    /// Its path in the body: two names for a property of an object.
    pub(crate) path: Vec<String>,
    flag: String,
    form: Form,
    help: String,
    is_required: bool,
}

/// The properties of a schema that can be written.
pub(crate) fn properties(schema: &str) -> Vec<Property> {
    let required: Vec<_> = required(schema).collect();
    let all = named(schema)["properties"].as_object().into_iter().flatten();
    let written = all.filter(|(_, about)| about["readOnly"] != true);
    written.flat_map(|(name, about)| flattened(name, about, required.contains(&name.as_str()))).collect()
}

/// A schema of the document.
pub(crate) fn named(schema: &str) -> &'static Value {
    &DOCUMENT["components"]["schemas"][schema]
}

/// What the document says of a property. `None`: the schema has none of this name.
pub(crate) fn about(schema: &str, property: &str) -> Option<&'static Value> {
    named(schema)["properties"].get(property)
}

/// The properties that a new resource must have.
pub(crate) fn required(schema: &str) -> impl Iterator<Item = &'static str> {
    named(schema)["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn flattened(name: &str, about: &Value, is_required: bool) -> Vec<Property> {
    let about = resolved(about);
    let flag = RENAMED
        .iter()
        .find(|(from, _)| *from == name)
        .map_or_else(|| kebab(name), |(_, to)| (*to).to_owned());
    let property = |path: &[&str], flag: String, about: &Value, is_required| Property {
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        form: form(about),
        help: help(about),
        flag,
        is_required,
    };
    match about["properties"].as_object().filter(|inner| !inner.is_empty()) {
        Some(inner) => inner
            .iter()
            .map(|(part, about)| {
                property(&[name, part], format!("{flag}-{}", kebab(part)), resolved(about), false)
            })
            .collect(),
        None => vec![property(&[name], flag, about, is_required)],
    }
}

/// The schema that a reference, or the first of several alternatives, names.
pub(crate) fn resolved(about: &Value) -> &Value {
    let about = about["anyOf"].get(0).unwrap_or(about);
    match about["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => DOCUMENT.pointer(pointer).unwrap_or(about),
        None => about,
    }
}

fn form(about: &Value) -> Form {
    let is = |name: &str| {
        about["type"] == name || about["type"].as_array().is_some_and(|t| t.contains(&json!(name)))
    };
    match () {
        () if about["writeOnly"] == true => Form::Secret,
        () if is("boolean") => Form::Switch,
        () if is("integer") => Form::Number,
        () if is("array") => Form::Texts,
        () if is("object") => Form::Pairs,
        () => Form::Text,
    }
}

/// The first sentence, and an example.
fn help(about: &Value) -> String {
    let text = about["description"].as_str().unwrap_or_default().replace('`', "");
    let example = about.get("example").or_else(|| about["items"].get("example"));
    let example = example.filter(|e| !e.is_object()).map(|e| e.to_string().replace('"', ""));
    let choices = about["enum"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    let more = choices.map(|c| format!("one of: {c}")).or(example.map(|e| format!("for example {e}")));
    match (text.is_empty(), more) {
        (false, Some(more)) => format!("{text} ({more})"),
        (true, Some(more)) => more[..1].to_uppercase() + &more[1..],
        (_, None) => text,
    }
}

fn kebab(name: &str) -> String {
    name.chars().fold(String::new(), |mut all, c| {
        if c.is_ascii_uppercase() {
            all.push('-');
        }
        all.push(c.to_ascii_lowercase());
        all
    })
}

/// Adds a flag for each property.
pub(crate) fn with_flags(command: Command, schema: &str, is_update: bool) -> Command {
    let mut command = command.arg(
        Arg::new("file")
            .short('f')
            .long("file")
            .value_name("FILE")
            .help("Read the properties from a JSON or YAML file; - is standard input. Flags win over it"),
    );
    for property in properties(schema) {
        let is_required = property.is_required && !is_update;
        let help = if is_required { property.help + " [required]" } else { property.help };
        let arg = Arg::new(property.flag.clone()).long(property.flag.clone()).help(help);
        // A Frontdoor's name is an argument, too.
        let arg = arg.hide(property.path == ["defaultNamespaceName"] && !is_update);
        let arg = match property.form {
            // The name is an argument of its own.
            _ if property.path == ["name"] && !is_update => continue,
            Form::Text => arg.value_name("TEXT"),
            Form::Number => arg.value_name("NUMBER").value_parser(clap::value_parser!(i64)),
            Form::Switch => arg
                .value_name("BOOL")
                .value_parser(clap::value_parser!(bool))
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            Form::Texts => arg.value_name("TEXT").action(ArgAction::Append).value_delimiter(','),
            Form::Pairs => arg.value_name("KEY=VALUE").action(ArgAction::Append),
            Form::Secret => arg
                .long(format!("{}-file", property.flag))
                .value_name("FILE")
                .help("Read it from a file; - is standard input"),
        };
        command = command.arg(arg);
    }
    if is_update {
        let unset = Arg::new("unset").long("unset").value_name("FLAG").action(ArgAction::Append);
        command = command.arg(unset.help("Remove a property, by the name of its flag: --unset description"));
    }
    command
}

/// The body that the flags, and the file, ask for.
pub(crate) fn body(kind: &Kind, schema: &str, matches: &ArgMatches) -> Result<Value, Failed> {
    let mut body = match matches.get_one::<String>("file") {
        Some(file) => structured(file)?,
        None => json!({}),
    };
    let Some(object) = body.as_object_mut() else {
        return Err(Failed::usage("--file has to contain one object"));
    };
    let all = properties(schema);
    for property in &all {
        if let Some(value) = property.value(matches)? {
            put(object, &property.path, value);
        }
    }
    for flag in matches.try_get_many::<String>("unset").ok().flatten().into_iter().flatten() {
        let flag = flag.trim_start_matches('-');
        let property = all.iter().find(|p| p.flag == flag || p.path.first().is_some_and(|name| name == flag));
        let Some(property) = property else {
            let flags: Vec<_> = all.iter().map(|p| p.flag.as_str()).collect();
            return Err(Failed::usage(format!("--unset {flag}: a {} has {}", kind.name, flags.join(", "))));
        };
        // A property that its object needs goes with the object.
        let is_needed = property.path.get(1).is_some_and(|inner| needs(schema, &property.path[0], inner));
        let is_whole = flag == property.path[0] || is_needed;
        put(object, if is_whole { &property.path[..1] } else { &property.path }, Value::Null);
    }
    Ok(body)
}

/// Whether an object in the schema is nothing without one of its properties.
fn needs(schema: &str, object: &str, inner: &str) -> bool {
    let required = about(schema, object).map(|about| &resolved(about)["required"]);
    required.and_then(Value::as_array).into_iter().flatten().any(|name| name == inner)
}

/// The arguments that a body lacks. The property `label` has one without a flag.
pub(crate) fn missing(schema: &str, label: &str, body: &Value) -> Vec<String> {
    let needed = properties(schema).into_iter().filter(|p| p.is_required);
    let said = |p: Property| if p.path == [label] { "NAME".to_owned() } else { format!("--{}", p.flag) };
    needed.filter(|p| body.get(&p.path[0]).is_none()).map(said).collect()
}

fn put(object: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            object.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = object.entry(name).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}

impl Property {
    /// What its flag says. `None`: the flag was not given.
    fn value(&self, matches: &ArgMatches) -> Result<Option<Value>, Failed> {
        let text = || matches.try_get_one::<String>(&self.flag).ok().flatten();
        let texts = || matches.try_get_many::<String>(&self.flag).ok().flatten();
        Ok(match self.form {
            Form::Text => text().map(|text| json!(text)),
            Form::Number => matches.try_get_one::<i64>(&self.flag).ok().flatten().map(|n| json!(n)),
            Form::Switch => matches.try_get_one::<bool>(&self.flag).ok().flatten().map(|b| json!(b)),
            Form::Texts => texts().map(|all| json!(all.collect::<Vec<_>>())),
            Form::Pairs => match texts() {
                Some(all) => Some(self.pairs(all)?),
                None => None,
            },
            Form::Secret => match text() {
                Some(file) => Some(json!(read_secret(file)?.trim_end_matches(['\r', '\n']))),
                None => None,
            },
        })
    }

    fn pairs<'a>(&self, all: impl Iterator<Item = &'a String>) -> Result<Value, Failed> {
        let mut pairs = Map::new();
        for pair in all {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failed::usage(format!("--{} {pair}: write KEY=VALUE", self.flag)));
            };
            pairs.insert(key.to_owned(), json!(value));
        }
        Ok(Value::Object(pairs))
    }
}

/// A file's text, or that of standard input for `-`.
pub(crate) fn read(file: &str) -> Result<String, Failed> {
    let mut text = String::new();
    let done = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        _ => fs::read_to_string(file).map(|all| text = all),
    };
    done.map_err(|error| Failed::usage(format!("{file} cannot be read: {error}")))?;
    Ok(text)
}

/// As [`read`], of a file with a secret. That others can read it is told, and no reason to refuse it.
pub(crate) fn read_secret(file: &str) -> Result<String, Failed> {
    let text = read(file)?;
    if let Some(warning) = open_to_others(Path::new(file)).filter(|_| file != "-") {
        say(&format!("Warning: {warning}"));
    }
    Ok(text)
}

/// A file of JSON or YAML, of which JSON is a part.
pub(crate) fn structured(file: &str) -> Result<Value, Failed> {
    serde_saphyr::from_str(&read(file)?).map_err(|error| Failed::usage(format!("{file}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{FRONTDOOR, KINDS, SHARE};

    fn share(args: &[&str]) -> Result<Value, Failed> {
        let command = with_flags(Command::new("share"), "IpsecSharePatch", true);
        let all = [&["share"], args].concat();
        body(&SHARE, "IpsecSharePatch", &command.try_get_matches_from(all).unwrap())
    }

    #[test]
    fn flags_become_properties() {
        let args = [
            "--ingress-port",
            "9000",
            "--tag",
            "team=payments",
            "--allowed-sources",
            "10.0.0.0/24,10.0.1.0/24",
        ];
        let more = ["--health-check-type", "none", "--unset", "description", "--unset", "health-check-type"];
        assert_eq!(
            share(&args).unwrap(),
            json!({"ingressPort": 9000, "tags": {"team": "payments"}, "allowedSources": ["10.0.0.0/24", "10.0.1.0/24"]})
        );
        assert_eq!(share(&more[..2]).unwrap(), json!({"healthCheck": {"type": "none"}}));
        assert_eq!(share(&more[2..]).unwrap(), json!({"description": null, "healthCheck": null}));
        let command = with_flags(Command::new("frontdoor"), "FrontdoorPatch", true);
        let matches = command.try_get_matches_from(["frontdoor", "--quota-shares", "5000"]).unwrap();
        let raised = body(&FRONTDOOR, "FrontdoorPatch", &matches).unwrap();
        assert_eq!(raised, json!({"quotas": {"shares": 5000}}));
        // One quota goes back to its default, and the others stay.
        let frontdoor = |args: &[&str]| {
            let command = with_flags(Command::new("frontdoor"), "FrontdoorPatch", true);
            body(&FRONTDOOR, "FrontdoorPatch", &command.try_get_matches_from(args).unwrap()).unwrap()
        };
        let unset = ["frontdoor", "--unset", "quota-shares", "--quota-tunnels", "5"];
        assert_eq!(frontdoor(&unset), json!({"quotas": {"shares": null, "tunnels": 5}}));
        assert_eq!(frontdoor(&["frontdoor", "--unset", "quotas"]), json!({"quotas": null}));
        let idle = ["--unset", "health-check-interval-seconds"];
        assert_eq!(share(&idle).unwrap(), json!({"healthCheck": {"intervalSeconds": null}}));
        assert!(share(&["--unset", "colour"]).is_err() && share(&["--tag", "team"]).is_err());
    }

    #[test]
    fn every_schema_of_a_kind_exists_and_no_flag_occurs_twice() {
        for kind in KINDS {
            for schema in [kind.create, kind.update].into_iter().flatten() {
                let mut flags: Vec<_> = properties(schema).into_iter().map(|p| p.flag).collect();
                assert!(!flags.is_empty(), "{schema}");
                let all = flags.len();
                flags.sort();
                flags.dedup();
                assert_eq!(flags.len(), all, "{schema}");
            }
        }
    }
}
