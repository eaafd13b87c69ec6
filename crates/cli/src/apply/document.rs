//! A file that says what there should be: documents of YAML, each of one resource. Everything that is wrong with the file
//! itself is told at once, with its lines.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::{
    failed::Failed,
    kind::{ENVIRONMENT, KINDS, Kind},
    schema::{self, about},
    valid,
};

/// Properties that name another resource: it is checked that it exists, instead of how its id is written.
pub(crate) const REFERENCES: &[(&str, &Kind, &str)] = &[
    ("ipsecTunnelId", &crate::kind::TUNNEL, "id"),
    ("envZId", &ENVIRONMENT, "zId"),
    ("locationId", &crate::kind::LOCATION, "id"),
];

/// Where a new account's secret is written, and what a key is read from.
pub(crate) const SECRET_OUT: &str = "clientSecretFile";
const SECRET_IN: &str = "preSharedKeyFile";

/// What one resource should be.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) kind: &'static Kind,
    pub(crate) name: String,
    /// The id that the file gives: the resource exists, and may have another name.
    pub(crate) id: Option<String>,
    /// Where it begins, for messages: `net.yaml:12`.
    pub(crate) place: String,
    /// What the file says, without secrets.
    pub(crate) properties: Map<String, Value>,
    places: BTreeMap<String, String>,
    /// The file with the key of a new tunnel, and the key.
    pub(crate) key: Option<(String, SecretString)>,
    /// Where the secret of a new account goes.
    pub(crate) secret_file: Option<String>,
}

type Lines = BTreeMap<String, Spanned<Value>>;

/// The documents of files.
pub(crate) fn read(files: &[String]) -> Result<Vec<Document>, Failed> {
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    for file in files {
        let text = schema::read(file)?;
        let options = serde_saphyr::options! { with_snippet: false };
        let documents: Vec<Spanned<Lines>> = serde_saphyr::from_multiple_with_options(&text, options)
            .map_err(|error| Failed::usage(format!("{file}: {error}")))?;
        for document in documents {
            let place = format!("{file}:{}", document.referenced.line());
            match Document::of(file, place, document.value) {
                Ok(document) => all.push(document),
                Err(wrong) => faults.extend(wrong),
            }
        }
    }
    for (n, one) in all.iter().enumerate() {
        let is_same = |other: &&Document| other.kind.name == one.kind.name && other.name == one.name;
        if let Some(first) = all[..n].iter().find(is_same) {
            faults.push(format!("{}: {} {} is also at {}", one.place, one.kind.name, one.name, first.place));
        }
        let file = one.secret_file.as_deref().map(in_real_folder);
        let has_file =
            |other: &&Document| file.is_some() && other.secret_file.as_deref().map(in_real_folder) == file;
        if let Some(first) = all[..n].iter().find(has_file) {
            faults.push(format!("{}: {SECRET_OUT} is that of account {} too", one.place, first.name));
        }
    }
    refused(faults)?;
    Ok(all)
}

/// Nothing is changed if anything is wrong.
pub(crate) fn refused(mut faults: Vec<String>) -> Result<(), Failed> {
    let line = |fault: &String| fault.split(':').nth(1).and_then(|line| line.parse::<u64>().ok());
    faults.sort_by_key(|fault| line(fault).unwrap_or_default());
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failed::usage(format!("{}\nNothing was changed.", faults.join("\n")))),
    }
}

impl Document {
    fn of(file: &str, place: String, mut lines: Lines) -> Result<Self, Vec<String>> {
        let at = |value: &Spanned<Value>| format!("{file}:{}", value.referenced.line());
        let said = lines.remove("kind").map(|value| value.value);
        let is_applied = |kind: &&&Kind| kind.create.is_some() || kind.update.is_some() && kind.name == "env";
        let kinds = || KINDS.iter().filter(is_applied);
        let Some(kind) = kinds().find(|kind| said.as_ref().is_some_and(|said| *said == kind.name)) else {
            let all: Vec<_> = kinds().map(|kind| kind.name).collect();
            return Err(vec![format!("{place}: kind must be one of {}", all.join(", "))]);
        };
        let mut faults = Vec::new();
        let text = |lines: &mut Lines, property: &str, faults: &mut Vec<String>| {
            let value = lines.remove(property)?;
            if !value.value.is_string() {
                faults.push(format!("{}: {property} must be of type string", at(&value)));
            }
            value.value.as_str().map(str::to_owned)
        };
        let id = text(&mut lines, kind.id, &mut faults);
        let secret_file = match kind.name {
            "account" => text(&mut lines, SECRET_OUT, &mut faults),
            _ => None,
        };
        let key_file = if kind.name == "tunnel" { text(&mut lines, SECRET_IN, &mut faults) } else { None };
        let mut document = Self {
            kind,
            name: String::new(),
            id,
            place,
            properties: Map::new(),
            places: BTreeMap::new(),
            key: None,
            secret_file: secret_file.map(|path| beside(file, &path)),
        };
        for (property, value) in lines {
            document.take(property, at(&value), value.value, &mut faults);
        }
        if let Some(path) = key_file.map(|path| beside(file, &path)) {
            match schema::read_secret(&path) {
                Ok(key) => document.key = Some((path, key.trim_end_matches(['\r', '\n']).into())),
                Err(error) => faults.push(format!("{}: {SECRET_IN}: {error}", document.place)),
            }
        }
        match document.properties.get(kind.label).and_then(Value::as_str) {
            Some(name) => name.clone_into(&mut document.name),
            None => faults.push(format!("{}: {} is missing", document.place, kind.label)),
        }
        if faults.is_empty() { Ok(document) } else { Err(faults) }
    }

    fn take(&mut self, property: String, place: String, value: Value, faults: &mut Vec<String>) {
        let schema = self.kind.create.or(self.kind.update).unwrap_or_default();
        let mut wrong = |why: String| faults.push(format!("{place}: {why}"));
        let Some(about) = about(schema, &property) else {
            return wrong(format!("a {} has no property {property}", self.kind.name));
        };
        if about["readOnly"] == true {
            // So that what was read can be applied.
            return;
        }
        if about["writeOnly"] == true {
            return wrong(format!("{property} is a secret: name a file that has it with {property}File"));
        }
        if value.is_null() && schema::required(schema).any(|required| required == property) {
            return wrong(format!("a {} needs {property}: it cannot be null", self.kind.name));
        }
        let reference = REFERENCES.iter().any(|(name, ..)| *name == property);
        let fault = match reference {
            true => (!value.is_string() && !value.is_null()).then(|| "must be of type string".to_owned()),
            false => valid::fault(about, &value),
        };
        if let Some(why) = fault {
            return wrong(format!("{property} {why}"));
        }
        self.places.insert(property.clone(), place);
        self.properties.insert(property, value);
    }

    /// Where a property is said, or the document.
    pub(crate) fn place_of(&self, property: &str) -> &str {
        self.places.get(property).unwrap_or(&self.place)
    }
}

/// A path that a file gives is relative to that file.
fn beside(file: &str, path: &str) -> String {
    let folder = Path::new(file).parent().filter(|_| file != "-").unwrap_or(Path::new(""));
    folder.join(path).display().to_string()
}

/// The same for each way to write the path of one file, which need not exist.
fn in_real_folder(path: &str) -> PathBuf {
    let path = Path::new(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    folder.join(path.file_name().unwrap_or_default())
}
