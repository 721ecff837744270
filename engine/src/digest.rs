//! A digest of bytes, by which accidents are noticed: another file, an edit, a flipped bit.
//!
//! Not a secret: whoever wants to can make other bytes of the same digest. Every word goes through a bijection of the
//! digest so far, so no change within one word of 8 bytes is ever missed; any other is with a probability of 2^-64.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::rng::mix;

/// What was digested, as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(u64);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::default();
        digester.add(bytes);
        digester.digest()
    }
}

impl From<u64> for Digest {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let value = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        value.map(Self).ok_or_else(|| "a digest is 16 hexadecimal digits".to_string())
    }
}

/// Digests bytes as they come; how they are cut into pieces does not matter.
#[derive(Clone, Debug, Default)]
pub struct Digester {
    state: u64,
    length: u64,
    /// The bytes since the last whole word.
    rest: [u8; 8],
}

impl Digester {
    /// Takes more bytes.
    pub fn add(&mut self, mut bytes: &[u8]) {
        let held = (self.length % 8) as usize;
        self.length += bytes.len() as u64;
        if held > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(8 - held));
            self.rest[held..][..now.len()].copy_from_slice(now);
            if held + now.len() < 8 {
                return;
            }
            self.state = mix(self.state, u64::from_le_bytes(self.rest));
            bytes = later;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        self.state = words.iter().fold(self.state, |state, word| mix(state, u64::from_le_bytes(*word)));
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> Digest {
        let held = (self.length % 8) as usize;
        let mut last = [0; 8];
        last[..held].copy_from_slice(&self.rest[..held]);
        Digest(mix(mix(self.state, u64::from_le_bytes(last)), self.length))
    }
}

/// A writer that digests what it passes on.
pub struct Digesting<'a> {
    out: &'a mut dyn Write,
    digester: Digester,
}

impl<'a> Digesting<'a> {
    /// Passes on to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, digester: Digester::default() }
    }

    /// The digest of all that was written.
    pub fn digest(&self) -> Digest {
        self.digester.digest()
    }
}

impl Write for Digesting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digester.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_byte_and_the_length_count_and_the_pieces_do_not() {
        let bytes: Vec<u8> = (0..43_u8).map(|b| b.wrapping_mul(37)).collect();
        let whole = Digest::of(&bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert_ne!(Digest::of(&other), whole, "bit {bit} of byte {at}");
            }
            let mut digester = Digester::default();
            digester.add(&bytes[..at]);
            digester.add(&[]);
            digester.add(&bytes[at..]);
            assert_eq!((digester.digest(), digester.length()), (whole, 43), "cut at {at}");
            assert_ne!(Digest::of(&bytes[..at]), whole);
        }
        assert_ne!(Digest::of(&[0]), Digest::of(&[0, 0]));
    }

    #[test]
    fn a_digest_never_changes_and_reads_back_from_its_text() {
        // Checkpoints hold digests: another definition is another format.
        assert_eq!(Digest::of(b"").to_string(), "a706dd2f4d197e6f");
        let digest = Digest::of(b"temper");
        assert_eq!(Digest::try_from(digest.to_string()), Ok(digest));
        for bad in ["", "0", "+706dd2f4d197e6f", "A706DD2F4D197E6F", "a706dd2f4d197e6f0"] {
            assert!(Digest::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }
}
