//! Between Rust and JavaScript: objects, typed arrays, errors, the clock.

use js_sys::{Array, Float32Array, Object, Reflect, Uint8Array, Uint32Array};
use serde::Serialize;
use temper_engine::Error;
use temper_engine::host::Clock;
use wasm_bindgen::{JsCast, JsValue};

/// What a failed request rejects with: `{kind, message}`.
pub struct Refusal(JsValue);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        // A variant's name, `NonFinite { .. }`, as the page knows it: `non_finite`.
        let debug = format!("{error:?}");
        let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
        let mut kind = String::new();
        for (index, letter) in name.chars().enumerate() {
            if letter.is_ascii_uppercase() && index > 0 {
                kind.push('_');
            }
            kind.push(letter.to_ascii_lowercase());
        }
        Self(object(&[("kind", kind.into()), ("message", error.to_string().into())]))
    }
}

impl From<Refusal> for JsValue {
    fn from(refusal: Refusal) -> Self {
        refusal.0
    }
}

/// A plain object.
pub fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        // A fresh plain object takes any property.
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object.into()
}

/// A value as JavaScript's JSON would read it.
pub fn json(value: &impl Serialize) -> JsValue {
    // The engine's reports are maps with string keys and finite numbers.
    let text = serde_json::to_string(value).unwrap_or_else(|_| "null".into());
    js_sys::JSON::parse(&text).unwrap_or(JsValue::NULL)
}

/// An array of values.
pub fn array(values: impl IntoIterator<Item = JsValue>) -> JsValue {
    values.into_iter().collect::<Array>().into()
}

/// A `Float32Array` of its own memory.
pub fn floats(values: &[f32]) -> JsValue {
    Float32Array::from(values).into()
}

/// A `Uint32Array` of its own memory.
pub fn integers(values: &[u32]) -> JsValue {
    Uint32Array::from(values).into()
}

/// A `Uint8Array` of its own memory.
pub fn bytes(values: &[u8]) -> JsValue {
    Uint8Array::from(values).into()
}

/// `performance.now()` of the worker.
pub struct PerformanceClock(web_sys::Performance);

impl PerformanceClock {
    /// The clock of the scope that this module runs in.
    pub fn new() -> Self {
        let global = js_sys::global();
        let performance = Reflect::get(&global, &"performance".into()).unwrap_or(JsValue::UNDEFINED);
        Self(performance.unchecked_into())
    }
}

impl Clock for PerformanceClock {
    fn seconds(&self) -> f64 {
        self.0.now() / 1000.0
    }
}
