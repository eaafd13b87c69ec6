//! Lists the files in `console/dist`, which `make console` builds. Without them, the list is empty.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let here = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let built = Path::new(&here).join("../../console/dist");
    println!("cargo::rerun-if-changed={}", built.display());
    let mut names = Vec::new();
    for folder in ["", "assets/"] {
        let Ok(files) = fs::read_dir(built.join(folder)) else { continue };
        for file in files {
            let name = format!("{folder}{}", file?.file_name().display());
            names.extend(name.strip_suffix(".gz").map(str::to_owned));
        }
    }
    names.sort();
    for page in names.iter().filter(|name| name.ends_with(".html")) {
        let text = fs::read_to_string(built.join(page))?;
        for asset in text.split('"').filter_map(|part| part.strip_prefix("./assets/")) {
            if !names.contains(&format!("assets/{asset}")) {
                return Err(io::Error::other(format!(
                    "console/dist has no assets/{asset}: run `make console`"
                )));
            }
        }
    }
    let mut list = "&[\n".to_owned();
    for name in names {
        // The same text in whatever directory it is built: debug information has its checksum.
        let path = format!("/../../console/dist/{name}.gz");
        list += &format!(
            "    File {{ name: {name:?}, gzip: include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?})) }},\n"
        );
    }
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("files.rs"), list + "]")
}
