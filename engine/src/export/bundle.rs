//! Several files as one: a safetensors file with a byte tensor a file. The page fetches its model and data sets as one
//! bundle, and saves a race as one.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Error, Result};
use crate::host::shorten;

/// One file with these names and contents.
///
/// # Errors
/// [`Error::Format`] where two files have one name.
pub fn pack(name: &str, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let wrong = |problem: String| Error::Format { file: name.into(), problem };
    let mut views = Vec::with_capacity(files.len());
    for (index, (file, bytes)) in files.iter().enumerate() {
        if files[..index].iter().any(|(other, _)| other == file) {
            return Err(wrong(format!("two files are called {}", shorten(file))));
        }
        let view = TensorView::new(Dtype::U8, vec![bytes.len()], bytes).map_err(|e| wrong(e.to_string()))?;
        views.push((file.as_str(), view));
    }
    safetensors::serialize(views, None).map_err(|e| wrong(e.to_string()))
}

/// The files of a bundle, by name. Memory is bounded by the bundle's own size, whatever its header says.
///
/// # Errors
/// [`Error::Format`] where it is no bundle.
pub fn unpack(name: &str, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let wrong = |problem: String| Error::Format { file: name.into(), problem };
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| wrong(format!("not a bundle of files: {e}")))?;
    let mut files = Vec::new();
    for (file, view) in tensors.tensors() {
        if view.dtype() != Dtype::U8 {
            return Err(wrong(format!("{} is of type {:?}, not bytes", shorten(&file), view.dtype())));
        }
        files.push((file, view.data().to_vec()));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again_and_what_is_no_bundle_is_refused() {
        let files = vec![("a/b.json".to_string(), b"{}".to_vec()), ("c".to_string(), Vec::new())];
        let packed = pack("x", &files).unwrap();
        assert_eq!(unpack("x", &packed).unwrap(), files);
        for cut in [0, 7, 9, packed.len() - 1] {
            assert!(unpack("x", &packed[..cut]).is_err(), "{cut} bytes");
        }
        assert!(pack("x", &[files[0].clone(), files[0].clone()]).is_err());
    }
}
