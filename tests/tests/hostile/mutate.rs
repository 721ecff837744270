//! Inputs: a seed's files, changed a few times by bytes, by words and, where they are JSON, by structure.

use serde_json::Value;

use super::targets::Target;
use super::templates;

/// The files of one input.
pub type Input = Vec<Vec<u8>>;

/// SplitMix64: small, and any seed is good.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, number: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03));
        dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `count`, 0 for none.
    pub fn below(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { (self.next() % count as u64) as usize }
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Input `number` of a target.
pub fn input(target: Target, seeds: &[Input], seed: u64, number: u64) -> Input {
    let mut dice = Dice::new(seed, number);
    if target == Target::Broken {
        return vec![number.to_le_bytes().to_vec()];
    }
    if target == Target::Template && !dice.one_in(3) {
        return vec![templates::source(&mut dice).into_bytes()];
    }
    let mut input = seeds[dice.below(seeds.len())].clone();
    let changes = 1 + (dice.next().trailing_zeros() as usize).min(6);
    for _ in 0..changes {
        let file = dice.below(input.len());
        let other = &seeds[dice.below(seeds.len())];
        let other = &other[dice.below(other.len())];
        let bytes = &mut input[file];
        let json = matches!(bytes.first(), Some(b'{' | b'[')) && bytes.len() < 100_000;
        match (json, dice.below(4)) {
            (true, 1..) => change_json(bytes, &mut dice),
            (_, 0) if std::str::from_utf8(bytes).is_ok() => change_words(bytes, target.words(), &mut dice),
            _ => change_bytes(bytes, other, &mut dice),
        }
    }
    input
}

/// A place in a file, more often near its beginning, where lengths are.
fn place(length: usize, dice: &mut Dice) -> usize {
    match dice.below(3) {
        0 => dice.below(length),
        1 => dice.below(length.min(4096)),
        _ => dice.below(length.min(256)),
    }
}

const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    127,
    255,
    256,
    65_535,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

fn change_bytes(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = place(bytes.len(), dice);
    match dice.below(9) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        1 if !bytes.is_empty() => bytes[at] = dice.next() as u8,
        2 => bytes.truncate(at),
        3 => {
            let end = (at + 1 + dice.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let length = 1 + dice.below(16);
            let new: Vec<u8> = (0..length).map(|_| dice.next() as u8).collect();
            bytes.splice(at..at, new);
        }
        5 | 6 => {
            // A length or an offset, as it is stored in GGUF and before a safetensors header.
            let width = [1, 2, 4, 8][dice.below(4)];
            let number = match dice.one_in(3) {
                true => dice.next(),
                false => NUMBERS[dice.below(NUMBERS.len())].wrapping_add(dice.below(3) as u64).wrapping_sub(1),
            };
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        7 => {
            let from = place(other.len(), dice);
            let to = (from + dice.below(64)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            // One number more or less.
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if dice.one_in(2) { byte.wrapping_add(1) } else { byte.wrapping_sub(1) };
            }
        }
    }
}

fn change_words(bytes: &mut Vec<u8>, words: &[&str], dice: &mut Dice) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut at = dice.below(text.len() + 1);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let mut text = text.to_owned();
    match dice.below(4) {
        0 | 1 => text.insert_str(at, dice.pick(words)),
        2 => {
            let mut end = (at + dice.below(40)).min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let piece = text[at.min(end)..end].to_owned();
            let times = [0, 2, 3, 50][dice.below(4)];
            text.replace_range(at.min(end)..end, &piece.repeat(times));
        }
        _ => {
            let lines: Vec<&str> = text.lines().collect();
            let line = lines.get(dice.below(lines.len())).map_or(String::new(), |line| format!("{line}\n"));
            text.insert_str(at, &line);
        }
    }
    *bytes = text.into_bytes();
}

fn change_json(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else { return };
    let other = random_part(&value, dice).clone();
    let part = random_part_mut(&mut value, dice);
    match (dice.below(8), &mut *part) {
        (0 | 1, part) => *part = new_value(dice),
        (2, part) => *part = other,
        (3, Value::Array(items)) => {
            let times = [0, 2, 20][dice.below(3)];
            *items = std::iter::repeat_n(items.clone(), times).flatten().take(400).collect();
        }
        (4, Value::Array(items)) if !items.is_empty() => {
            items.remove(dice.below(items.len()));
        }
        (5, Value::Array(items)) => items.insert(0, other),
        (3 | 4, Value::Object(fields)) if !fields.is_empty() => {
            let name = fields.keys().nth(dice.below(fields.len())).cloned().unwrap_or_default();
            fields.remove(&name);
        }
        (5 | 6, Value::Object(fields)) => {
            let name = fields.keys().nth(dice.below(fields.len())).cloned().unwrap_or_default();
            fields.insert(if dice.one_in(2) { format!("{name}x") } else { name }, other);
        }
        (_, Value::Number(_)) => *part = NUMBERS[dice.below(NUMBERS.len())].into(),
        (_, Value::String(text)) => {
            let mut new = text.clone().into_bytes();
            if dice.one_in(2) {
                new.truncate(dice.below(new.len() + 1));
            } else {
                new = new.repeat(1 + dice.below(4));
            }
            *text = String::from_utf8_lossy(&new).into_owned();
        }
        (_, part) => *part = new_value(dice),
    }
    *bytes = value.to_string().into_bytes();
}

fn new_value(dice: &mut Dice) -> Value {
    match dice.below(12) {
        0 => Value::Null,
        1 => true.into(),
        2 => (-1).into(),
        3 => NUMBERS[dice.below(NUMBERS.len())].into(),
        4 => 1e308.into(),
        5 => (-0.5).into(),
        6 => "".into(),
        7 => "a".repeat(1 << dice.below(12)).into(),
        8 => Value::Array(Vec::new()),
        9 => Value::Object(Default::default()),
        10 => (0..dice.below(100)).fold(Value::Null, |inner, _| Value::Array(vec![inner])),
        _ => dice
            .pick(&["\u{0}", "é", "😀", "\u{FFFD}", " ", "\n", "(a+)+$", "(?=a)", "a*", "..", "../x", "F32", "BPE"])
            .into(),
    }
}

fn children(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    }
}

fn random_part<'a>(value: &'a Value, dice: &mut Dice) -> &'a Value {
    let count = children(value);
    if count == 0 || dice.one_in(4) {
        return value;
    }
    let at = dice.below(count);
    match value {
        Value::Array(items) => random_part(&items[at], dice),
        Value::Object(fields) => fields.values().nth(at).map_or(value, |field| random_part(field, dice)),
        other => other,
    }
}

fn random_part_mut<'a>(value: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let count = children(value);
    if count == 0 || dice.one_in(6) {
        return value;
    }
    let at = dice.below(count);
    match value {
        Value::Array(items) => random_part_mut(&mut items[at], dice),
        Value::Object(fields) => match fields.values_mut().nth(at) {
            Some(field) => random_part_mut(field, dice),
            None => unreachable!("counted above"),
        },
        other => other,
    }
}
