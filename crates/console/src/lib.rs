//! The files of the web console and the site page, compressed, as `make console` built them from `console/`.
//!
//! A program that is built without them has none, and says so where they would be.

/// A file of the console.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Its path below the console's address, such as `index.html` or `assets/main-1a2b3c4d.js`.
    pub name: &'static str,
    /// Its content, compressed (RFC 1952).
    pub gzip: &'static [u8],
}

/// All files.
pub static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The file with this name.
pub fn file(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}
