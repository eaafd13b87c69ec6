//! Functions are short enough to read: they have few arguments and few lines.

use std::{collections::BTreeSet, fs};

use syn::{spanned::Spanned as _, visit::Visit};

use crate::debt::LONG_FUNCTIONS;
use crate::source::{is_test, root, sources};

/// The most arguments of a function, `self` included.
const MAX_ARGUMENTS: usize = 5;

/// The most lines of a function's body, without empty lines and comments.
const MAX_LINES: usize = 60;

#[test]
fn functions_have_few_arguments_and_few_lines() {
    let exceptions =
        || LONG_FUNCTIONS.iter().flat_map(|(path, names, _)| names.iter().map(|name| (*path, *name)));
    let (mut broken, mut needed) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        let text = fs::read_to_string(root().join(&source.path)).unwrap();
        let mut functions = Functions { lines: text.lines().collect(), found: Vec::new() };
        functions.visit_file(&source.ast);
        for (name, arguments, lines) in functions.found {
            match exceptions().find(|(path, long)| source.path.starts_with(path) && *long == name) {
                Some(exception) => drop(needed.insert(exception)),
                None => broken.push(format!("{}: {name}: {arguments} arguments, {lines} lines", source.path)),
            }
        }
    }
    assert!(
        broken.is_empty(),
        "more than {MAX_ARGUMENTS} arguments or {MAX_LINES} lines:\n{}",
        broken.join("\n")
    );
    let unneeded: Vec<_> = exceptions().filter(|exception| !needed.contains(exception)).collect();
    assert!(unneeded.is_empty(), "these exceptions are not needed any more: {unneeded:?}");
}

/// Collects the functions of a file that exceed a limit, with their numbers of arguments and lines.
struct Functions<'a> {
    lines: Vec<&'a str>,
    found: Vec<(String, usize, usize)>,
}

impl Functions<'_> {
    fn check(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let (first, last) = (body.span().start().line, body.span().end().line);
        let inside = self.lines.get(first..last.saturating_sub(1)).unwrap_or_default();
        let is_code = |line: &&&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let (arguments, lines) = (signature.inputs.len(), inside.iter().filter(is_code).count());
        if arguments > MAX_ARGUMENTS || lines > MAX_LINES {
            self.found.push((signature.ident.to_string(), arguments, lines));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}
