//! Writes a GGUF file (version 3) front to back, with one tensor in memory at a time. The reader is
//! [`crate::weights::gguf`].

use std::io::{self, Write};

use crate::weights::WeightFormat;

/// Where tensors begin, in bytes.
const ALIGNMENT: u64 = 32;

/// A value of the metadata.
pub enum Field {
    /// `u32`.
    Count(u32),
    /// `f32`.
    Number(f32),
    /// Text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Array of `i32`.
    Integers(Vec<i32>),
    /// Array of `f32`.
    Numbers(Vec<f32>),
    /// Array of yes or no.
    Flags(Vec<bool>),
    /// Yes or no.
    Flag(bool),
    /// As another file has it: its type, then its bytes.
    Stored(Vec<u8>),
}

/// A tensor that will follow.
pub struct Announced {
    /// Its name in the file.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub format: WeightFormat,
}

impl Announced {
    /// Bytes of the tensor.
    ///
    /// # Errors
    /// Where a row is no whole number of blocks.
    pub fn length(&self) -> io::Result<u64> {
        let wrong = || format!("{}: rows of {:?} are no whole blocks of {}", self.name, self.shape, self.format.name());
        let bytes = self.format.bytes_for_shape(&self.shape);
        bytes.map(|n| n as u64).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, wrong()))
    }
}

/// Writes everything; `tensor` writes the bytes of the tensor of its index.
///
/// # Errors
/// The writer's; a tensor whose shape its format cannot store.
pub fn write(
    out: &mut dyn Write,
    fields: &[(String, Field)],
    tensors: &[Announced],
    tensor: &mut dyn FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = b"GGUF".to_vec();
    header.extend(3_u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((fields.len() as u64).to_le_bytes());
    for (key, field) in fields {
        push_text(&mut header, key);
        push_field(&mut header, field);
    }
    let mut offset = 0;
    for announced in tensors {
        push_text(&mut header, &announced.name);
        header.extend((announced.shape.len() as u32).to_le_bytes());
        // The fastest dimension comes first.
        for &dimension in announced.shape.iter().rev() {
            header.extend((dimension as u64).to_le_bytes());
        }
        header.extend(announced.format.gguf_type().to_le_bytes());
        header.extend(u64::to_le_bytes(offset));
        offset = (offset + announced.length()?).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&header)?;
    for (index, announced) in tensors.iter().enumerate() {
        tensor(index, out)?;
        let length = announced.length()?;
        out.write_all(&[0; ALIGNMENT as usize][..(length.next_multiple_of(ALIGNMENT) - length) as usize])?;
    }
    Ok(())
}

fn push_text(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

fn push_field(header: &mut Vec<u8>, field: &Field) {
    let mut kind = |number: u32| header.extend(number.to_le_bytes());
    match field {
        Field::Count(n) => {
            kind(4);
            header.extend(n.to_le_bytes());
        }
        Field::Number(x) => {
            kind(6);
            header.extend(x.to_le_bytes());
        }
        Field::Text(text) => {
            kind(8);
            push_text(header, text);
        }
        Field::Texts(texts) => {
            kind(9);
            kind(8);
            header.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| push_text(header, text));
        }
        Field::Integers(values) => {
            kind(9);
            kind(5);
            header.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| header.extend(value.to_le_bytes()));
        }
        Field::Numbers(values) => {
            kind(9);
            kind(6);
            header.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| header.extend(value.to_le_bytes()));
        }
        Field::Flags(flags) => {
            kind(9);
            kind(7);
            header.extend((flags.len() as u64).to_le_bytes());
            header.extend(flags.iter().map(|&flag| u8::from(flag)));
        }
        Field::Flag(flag) => {
            kind(7);
            header.push(u8::from(*flag));
        }
        Field::Stored(bytes) => header.extend(bytes),
    }
}
