//! What a face that is not Rust is told: one declaration gives the struct, its value on the other side, and the text of
//! its type there.
//!
//! Place in the flow: the engine's answers -> [`Message::into_value`] -> the wasm surface, which makes a JavaScript object
//! of a [`Value`] and knows no message. The types as JSDoc are `web/page/messages.js`; a test in [`crate::lab`] keeps
//! that file equal to the declarations.

use std::collections::BTreeMap;

/// A message as a tree, free of any language.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number; whole ones are exact up to 2^53.
    Number(f64),
    /// Text.
    Text(String),
    /// A `Float32Array`.
    Floats(Vec<f32>),
    /// A `Uint32Array`.
    Integers(Vec<u32>),
    /// A `Uint8Array`.
    Bytes(Vec<u8>),
    /// A plain array.
    List(Vec<Value>),
    /// Names and values.
    Object(Vec<(String, Value)>),
}

/// What can be told.
pub trait Message {
    /// Its type in JSDoc.
    #[cfg(test)]
    fn type_name() -> String;

    /// Itself.
    fn into_value(self) -> Value;
}

/// Many numbers, which cross as one block of memory: a `Float32Array`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floats(pub Vec<f32>);

/// Many whole numbers, which cross as one block of memory: a `Uint32Array`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Integers(pub Vec<u32>);

/// A file's contents: a `Uint8Array`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bytes(pub Vec<u8>);

macro_rules! simple {
    ($($type:ty, $name:literal, |$value:ident| $make:expr;)+) => {
        $(impl Message for $type {
            #[cfg(test)]
            fn type_name() -> String {
                $name.into()
            }

            fn into_value(self) -> Value {
                let $value = self;
                $make
            }
        })+
    };
}

simple! {
    bool, "boolean", |value| Value::Bool(value);
    f32, "number", |value| Value::Number(value.into());
    f64, "number", |value| Value::Number(value);
    u64, "number", |value| Value::Number(value as f64);
    usize, "number", |value| Value::Number(value as f64);
    &'static str, "string", |value| Value::Text(value.into());
    String, "string", |value| Value::Text(value);
    Floats, "Float32Array", |value| Value::Floats(value.0);
    Integers, "Uint32Array", |value| Value::Integers(value.0);
    Bytes, "Uint8Array", |value| Value::Bytes(value.0);
    BTreeMap<String, String>, "Record<string, string>",
        |value| Value::Object(value.into_iter().map(|(key, value)| (key, Value::Text(value))).collect());
}

impl<T: Message> Message for Vec<T> {
    #[cfg(test)]
    fn type_name() -> String {
        format!("{}[]", T::type_name())
    }

    fn into_value(self) -> Value {
        Value::List(self.into_iter().map(T::into_value).collect())
    }
}

impl<T: Message> Message for Option<T> {
    #[cfg(test)]
    fn type_name() -> String {
        format!("({} | null)", T::type_name())
    }

    fn into_value(self) -> Value {
        self.map_or(Value::Null, T::into_value)
    }
}

/// A field's name as Rust, JSON lines and the report have it.
pub fn snake_case(name: &str) -> String {
    name.into()
}

/// A field's name as JavaScript has it.
pub fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name + letters.as_str()
    })
}

/// A struct's type in words.
#[cfg(test)]
pub struct Typedef {
    pub name: &'static str,
    pub doc: String,
    /// Name, type, documentation.
    pub fields: Vec<(String, String, String)>,
}

/// A struct that knows its type in words.
#[cfg(test)]
pub trait Declared {
    fn typedef() -> Typedef;
}

/// Declares structs that are messages: `messages! { camel_case; pub struct .. }`. The first word says how JavaScript spells
/// the fields. Every struct and field has documentation, which becomes that of its type.
macro_rules! messages {
    ($case:ident; $(
        $(#[doc = $doc:literal])+
        #[derive($($derive:ident),+)]
        pub struct $name:ident { $( $(#[doc = $field_doc:literal])+ pub $field:ident: $type:ty, )+ }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive($($derive),+)]
        pub struct $name { $( $(#[doc = $field_doc])+ pub $field: $type, )+ }

        impl $crate::message::Message for $name {
            #[cfg(test)]
            fn type_name() -> String {
                stringify!($name).into()
            }

            fn into_value(self) -> $crate::message::Value {
                $crate::message::Value::Object(vec![
                    $(($crate::message::$case(stringify!($field)), $crate::message::Message::into_value(self.$field))),+
                ])
            }
        }

        #[cfg(test)]
        impl $crate::message::Declared for $name {
            fn typedef() -> $crate::message::Typedef {
                $crate::message::Typedef {
                    name: stringify!($name),
                    doc: [$($doc.trim()),+].join(" "),
                    fields: vec![$((
                        $crate::message::$case(stringify!($field)),
                        <$type as $crate::message::Message>::type_name(),
                        [$($field_doc.trim()),+].join(" "),
                    )),+],
                }
            }
        }
    )+ };
}
pub(crate) use messages;

/// Types as a JavaScript comment, in lines of at most 120 characters.
#[cfg(test)]
pub fn jsdoc(typedefs: &[Typedef]) -> String {
    let mut text = String::new();
    for Typedef { name, doc, fields } in typedefs {
        text += "/**\n";
        text += &wrapped(doc, " * ", "");
        text += &format!(" * @typedef {{object}} {name}\n");
        for (field, kind, doc) in fields {
            text += &wrapped(&format!("@property {{{kind}}} {field}  {doc}"), " * ", "  ");
        }
        text += " */\n\n";
    }
    text
}

#[cfg(test)]
fn wrapped(text: &str, prefix: &str, hang: &str) -> String {
    const WIDTH: usize = 120;
    let mut lines = vec![prefix.to_string()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line");
        let empty = line.len() <= prefix.len();
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{prefix}{hang}{word}"));
        } else {
            *line += if empty { "" } else { " " };
            *line += word;
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    messages! {
        camel_case;

        /// A thing of
        /// two lines.
        #[derive(Clone, Debug)]
        pub struct Thing {
            /// How many there are.
            pub how_many: usize,
            /// Names.
            pub names: Vec<String>,
            /// Numbers in one block.
            pub values: Floats,
            /// Perhaps another.
            pub next_one: Option<Inner>,
        }

        /// A thing in it.
        #[derive(Clone, Debug)]
        pub struct Inner {
            /// Yes or no.
            pub set: bool,
        }
    }

    #[test]
    fn one_declaration_gives_the_value_and_the_text_of_its_type() {
        let thing = Thing {
            how_many: 3,
            names: vec!["a".into()],
            values: Floats(vec![0.5]),
            next_one: Some(Inner { set: true }),
        };
        let object = |fields: Vec<(&str, Value)>| {
            Value::Object(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
        };
        assert_eq!(
            thing.into_value(),
            object(vec![
                ("howMany", Value::Number(3.0)),
                ("names", Value::List(vec![Value::Text("a".into())])),
                ("values", Value::Floats(vec![0.5])),
                ("nextOne", object(vec![("set", Value::Bool(true))])),
            ])
        );
        let text = jsdoc(&[Thing::typedef()]);
        assert_eq!(
            text,
            "/**\n * A thing of two lines.\n * @typedef {object} Thing\n * @property {number} howMany  How many there are.\n \
             * @property {string[]} names  Names.\n * @property {Float32Array} values  Numbers in one block.\n \
             * @property {(Inner | null)} nextOne  Perhaps another.\n */\n\n"
        );
    }

    #[test]
    fn long_documentation_is_wrapped() {
        let text = wrapped(&["word"; 60].join(" "), " * ", "  ");
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= 120), "{text}");
    }
}
