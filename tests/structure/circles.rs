//! The files of a crate have no circular dependencies.

use std::collections::{BTreeMap, BTreeSet};

use crate::debt::CIRCLES;
use crate::source::{Mentions, Source, sources};

type Module = Vec<String>;

#[test]
fn files_of_a_crate_have_no_circular_dependencies() {
    let mut crates: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    for source in sources() {
        crates.entry(source.krate.clone()).or_default().push(source);
    }
    let circles: Vec<String> = crates.into_values().flat_map(|files| Crate::new(files).circles()).collect();
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
}

struct Crate {
    files: BTreeMap<Module, (String, Mentions)>,
}

impl Crate {
    fn new(files: Vec<Source>) -> Self {
        // An executable beside a library is a separate crate with one file.
        let library = files.iter().any(|file| file.path.ends_with("/src/lib.rs"));
        let files = files.into_iter().filter(|file| !(library && file.path.ends_with("/src/main.rs")));
        Self {
            files: files
                .map(|file| (file.module.clone(), (file.path.clone(), Mentions::of(&file))))
                .collect(),
        }
    }

    /// Describes each group of files that depend on each other.
    fn circles(&self) -> Vec<String> {
        let needs: BTreeMap<&Module, BTreeSet<&Module>> =
            self.files.keys().map(|module| (module, self.needs(module))).collect();
        let reached: BTreeMap<_, _> = needs.keys().map(|module| (*module, reached(module, &needs))).collect();
        let mut circles = BTreeSet::new();
        for (module, from_here) in &reached {
            let circle: BTreeSet<_> =
                from_here.iter().copied().filter(|other| reached[other].contains(module)).collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.retain(|circle| !circle.iter().any(|module| CIRCLES.contains(&&*self.files[*module].0)));
        circles.iter().map(|circle| self.described(circle, &needs)).collect()
    }

    fn described(&self, circle: &BTreeSet<&Module>, needs: &BTreeMap<&Module, BTreeSet<&Module>>) -> String {
        let edges = circle.iter().map(|module| {
            let inside: Vec<_> = needs[*module].intersection(circle).map(|other| other.join("::")).collect();
            format!("    {} needs {}", self.files[*module].0, inside.join(", "))
        });
        edges.collect::<Vec<_>>().join("\n") + "\n"
    }

    /// The files that define the items that this file refers to.
    fn needs(&self, module: &Module) -> BTreeSet<&Module> {
        let mentions = &self.files[module].1;
        mentions
            .paths
            .iter()
            .filter_map(|(inline, path)| self.absolute(module, inline, path))
            .map(|path| self.resolved(&path, 8))
            .filter(|needed| *needed != module)
            .collect()
    }

    /// The path relative to the crate's root. `None` if it leads out of the crate.
    fn absolute(&self, module: &Module, inline: &[String], path: &[String]) -> Option<Module> {
        let mut base = [module, inline].concat();
        let first = path.first()?;
        let rest = match first.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => &path[1..],
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().checked_sub(ups)?);
                &path[ups..]
            }
            _ if path.len() > 1 && self.files.contains_key(&[&base[..], &path[..1]].concat()) => path,
            _ => return None,
        };
        Some([&base, rest].concat())
    }

    /// The file that defines the item of a path. Follows re-exports.
    fn resolved(&self, path: &[String], depth: usize) -> &Module {
        let known = (0..=path.len()).rev().find_map(|len| self.files.get_key_value(&path[..len]));
        let (module, (_, mentions)) = known.expect("a crate has a root");
        let (Some(name), true) = (path.get(module.len()), depth > 0) else { return module };
        if mentions.items.iter().any(|item| item.name == *name) {
            return module;
        }
        let rest = &path[module.len() + 1..];
        for (exported, target) in &mentions.reexports {
            let Some(target) = self.absolute(module, &[], target) else { continue };
            if exported == name {
                return self.resolved(&[&target, rest].concat(), depth - 1);
            }
            if exported == "*" {
                let there = [&target[..], &path[module.len()..]].concat();
                let found = self.resolved(&there, depth - 1);
                if self.files[found].1.items.iter().any(|item| item.name == *name) {
                    return found;
                }
            }
        }
        module
    }
}

/// The modules that `from` depends on, directly or indirectly, and `from` itself.
fn reached<'a>(from: &'a Module, needs: &BTreeMap<&'a Module, BTreeSet<&'a Module>>) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        open.extend(needs[module].iter().filter(|next| reached.insert(**next)));
    }
    reached
}
