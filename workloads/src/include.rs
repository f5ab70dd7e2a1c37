//! What an `#include` of a text names: a file beside it, else a built-in text.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use svm_lang::Included;
use svm_model::text;

/// Bytes read of a text; the compiler refuses longer ones.
const BYTES: u64 = 2 << 20;

/// Finds the text that `name` means in an `#include` of the text `from`, a path or the name of a built-in text's
/// file. Built-in texts include built-in texts only.
///
/// # Errors
///
/// There is no such text, or its file cannot be read: what stands in the way.
pub fn find(name: &str, from: &str) -> Result<Included, String> {
    let built_in = text::KERNELS.iter().chain(text::PARTS).chain(text::POLICIES).any(|t| t.file == from);
    let path = Path::new(from).with_file_name(name);
    if built_in || !path.is_file() {
        return text::find(name, from);
    }
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(BYTES).read_to_string(&mut text));
    let file = path.display().to_string();
    match read {
        Ok(_) => Ok(Included { file, text }),
        Err(error) => Err(format!("cannot read {file}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::find;

    #[test]
    fn a_file_beside_the_text_comes_before_a_built_in_text() {
        let folder = std::env::temp_dir().join(format!("sevsim-include-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mine = folder.join("mine.c").display().to_string();
        fs::write(folder.join("clear-remark.c"), "int beside;\n").unwrap();
        assert_eq!(find("clear-remark.c", &mine).unwrap().text, "int beside;\n");
        assert!(find("linux-6.17.c", &mine).unwrap().file.starts_with("kernels/"));
        assert!(find("clear-remark.c", "policies/oracle.c").unwrap().file.starts_with("policies/"));
        assert!(find("absent.c", &mine).unwrap_err().contains("\"linux-6.17.c\""));
        fs::remove_dir_all(&folder).unwrap();
    }
}
