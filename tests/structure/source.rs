//! Parses the sources of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// One file of a crate's `src`.
pub(crate) struct Source {
    /// The name of the crate's folder.
    pub(crate) krate: String,
    /// Relative to the repository.
    pub(crate) path: String,
    /// The module path of the file: empty for a crate's root.
    pub(crate) module: Vec<String>,
    pub(crate) ast: syn::File,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every Rust file of the repository outside `target`, relative to its root, sorted.
pub(crate) fn rust_files() -> Vec<String> {
    let root = root();
    let found = ["crates", "tests", "benches"].iter().flat_map(|dir| files_below(&root.join(dir)));
    let mut files: Vec<_> =
        found.map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect();
    files.sort();
    files
}

pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found
}

/// The files of all crates' `src` folders, without test modules.
pub(crate) fn sources() -> Vec<Source> {
    rust_files().into_iter().filter_map(parse).collect()
}

fn parse(path: String) -> Option<Source> {
    let (krate, inside) = path.strip_prefix("crates/")?.split_once("/src/")?;
    let mut module: Vec<_> = inside.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if module.iter().any(|name| name == "tests") {
        return None;
    }
    if matches!(inside, "lib.rs" | "main.rs") {
        module.clear();
    }
    let text = fs::read_to_string(root().join(&path)).unwrap();
    let ast = syn::parse_file(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    Some(Source { krate: krate.to_owned(), module, ast, path })
}

pub(crate) fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("test")
            || attr.path().is_ident("cfg")
                && attr.meta.require_list().is_ok_and(|cfg| cfg.tokens.to_string().starts_with("test"))
    })
}

/// What a file mentions: paths in its code and in macro arguments, string literals, and the items that it defines.
#[derive(Default)]
pub(crate) struct Mentions {
    /// Each path with the inline modules around it.
    pub(crate) paths: Vec<(Vec<String>, Vec<String>)>,
    /// The re-exports of `pub use`: the exported name or `*`, and the path.
    pub(crate) reexports: Vec<(String, Vec<String>)>,
    pub(crate) strings: Vec<String>,
    pub(crate) items: Vec<Item>,
    inline: Vec<String>,
}

/// A named item that a file defines.
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) is_type: bool,
    pub(crate) scope: Scope,
}

/// Where an item can be used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Public,
    /// `pub(crate)`, `pub(super)` or `pub(in …)`.
    Crate,
    Private,
}

impl Mentions {
    pub(crate) fn of(source: &Source) -> Self {
        let mut mentions = Self::default();
        mentions.visit_file(&source.ast);
        mentions
    }

    fn path(&mut self, path: Vec<String>) {
        self.paths.push((self.inline.clone(), path));
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &[String], exported: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (name, path) = match tree {
            syn::UseTree::Path(path) => return self.use_tree(&path.tree, &with(&path.ident), exported),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.use_tree(tree, before, exported));
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                (before.last().cloned().unwrap_or_default(), before.to_vec())
            }
            syn::UseTree::Name(name) => (name.ident.to_string(), with(&name.ident)),
            syn::UseTree::Rename(rename) => (rename.rename.to_string(), with(&rename.ident)),
            syn::UseTree::Glob(_) => ("*".to_owned(), before.to_vec()),
        };
        if exported && self.inline.is_empty() {
            self.reexports.push((name, path));
        } else {
            self.path(path);
        }
    }

    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree;
        let mut path = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 && !path.is_empty() {
                        self.path_in_macro(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.path_in_macro(std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Literal(literal) => {
                            if let syn::Lit::Str(text) = syn::Lit::new(literal) {
                                self.strings.push(text.value());
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        self.path_in_macro(path);
    }

    /// Ignores a single word: it may be the `super` of `pub(super)`.
    fn path_in_macro(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.path(path);
        }
    }

    fn item(&mut self, name: &syn::Ident, vis: &syn::Visibility, is_type: bool) {
        let scope = match vis {
            syn::Visibility::Public(_) => Scope::Public,
            syn::Visibility::Restricted(_) => Scope::Crate,
            syn::Visibility::Inherited => Scope::Private,
        };
        self.items.push(Item { name: name.to_string(), is_type, scope });
    }
}

impl<'ast> Visit<'ast> for Mentions {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item::{Const, Enum, Fn, Mod, Static, Struct, Trait, Type, Union};
        let attrs = match item {
            Const(item) => &item.attrs,
            Fn(item) => &item.attrs,
            Mod(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_test(attrs) {
            return;
        }
        match item {
            Const(item) => self.item(&item.ident, &item.vis, false),
            Enum(item) => self.item(&item.ident, &item.vis, true),
            Fn(item) => self.item(&item.sig.ident, &item.vis, false),
            Static(item) => self.item(&item.ident, &item.vis, false),
            Struct(item) => self.item(&item.ident, &item.vis, true),
            Trait(item) => self.item(&item.ident, &item.vis, true),
            Type(item) => self.item(&item.ident, &item.vis, true),
            Union(item) => self.item(&item.ident, &item.vis, true),
            syn::Item::Macro(item)
                if item.mac.path.segments.last().is_some_and(|s| s.ident == "text_enum") =>
            {
                let mut tokens = item.mac.tokens.clone().into_iter();
                if let Some(proc_macro2::TokenTree::Ident(name)) =
                    tokens.find(|token| matches!(token, proc_macro2::TokenTree::Ident(_)))
                {
                    self.items.push(Item { name: name.to_string(), is_type: true, scope: Scope::Public });
                }
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inline.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.inline.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.tokens(mac.tokens.clone());
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.strings.push(text.value());
    }

    // The path in `pub(super)` is not a dependency.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    // Attributes contain no paths to which these rules apply.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}
