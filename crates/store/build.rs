//! Collects the migrations: `NNNN_what_it_adds.sql` becomes a version, a description and the text.
//!
//! sqlx has a macro for this, but with it sqlx, its drivers and their C libraries are compiled twice, also for the compiler.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=migrations");
    let mut files =
        fs::read_dir("migrations")?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let named = || {
            let (version, what) = file.file_stem()?.to_str()?.split_once('_')?;
            Some((version.parse::<i64>().ok()?, what.replace('_', " ")))
        };
        let (version, what) = named().ok_or_else(|| {
            io::Error::other(format!("{}: not named NNNN_what_it_adds.sql", file.display()))
        })?;
        // The same text in whatever directory it is built: debug information has its checksum.
        let path = format!("/{}", file.display());
        list += &format!(
            "    ({version}, {what:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),\n"
        );
    }
    list += "]\n";
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets no OUT_DIR"))?;
    fs::write(Path::new(&out).join("migrations.rs"), list)
}
