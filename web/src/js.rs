//! Between Rust and JavaScript: messages, errors, the clock.

use js_sys::{Array, Float32Array, Object, Reflect, Uint8Array, Uint32Array};
use temper_engine::host::Clock;
use temper_engine::page::{Message, Value};
use temper_engine::{Error, Host};
use wasm_bindgen::{JsCast, JsValue};

/// What a failed request rejects with: `{kind, message}`.
pub struct Refusal(JsValue);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let text = |text: String| Value::Text(text);
        let fields = [("kind", text(error.kind().into())), ("message", text(error.to_string()))];
        Self(js(Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())))
    }
}

impl From<Refusal> for JsValue {
    fn from(refusal: Refusal) -> Self {
        refusal.0
    }
}

/// A message as JavaScript's own.
pub fn message(message: impl Message) -> JsValue {
    js(message.into_value())
}

/// A value as JavaScript's own; arrays of numbers get memory of their own.
pub fn js(value: Value) -> JsValue {
    match value {
        Value::Null => JsValue::NULL,
        Value::Bool(value) => value.into(),
        Value::Number(value) => value.into(),
        Value::Text(value) => value.into(),
        Value::Floats(values) => Float32Array::from(values.as_slice()).into(),
        Value::Integers(values) => Uint32Array::from(values.as_slice()).into(),
        Value::Bytes(values) => Uint8Array::from(values.as_slice()).into(),
        Value::List(values) => values.into_iter().map(js).collect::<Array>().into(),
        Value::Object(fields) => {
            let object = Object::new();
            for (name, value) in fields {
                // A fresh plain object takes any property.
                let _ = Reflect::set(&object, &name.into(), &js(value));
            }
            object.into()
        }
    }
}

/// The worker as a run's host: it has a clock and memory, keeps no files, and shows everything.
pub struct Worker {
    performance: web_sys::Performance,
    device: temper_engine::Device,
}

impl Worker {
    /// The host of the scope that this module runs in.
    pub fn new(device: temper_engine::Device) -> Self {
        let global = js_sys::global();
        let performance = Reflect::get(&global, &"performance".into()).unwrap_or(JsValue::UNDEFINED);
        Self { performance: performance.unchecked_into(), device }
    }
}

impl Clock for Worker {
    fn seconds(&self) -> f64 {
        self.performance.now() / 1000.0
    }
}

impl Host for Worker {
    fn shows_rows(&self) -> bool {
        true
    }

    fn peak_bytes(&self) -> u64 {
        // On the CPU the module's own memory, which never shrinks.
        let module = || core::arch::wasm32::memory_size(0) as u64 * 65_536;
        self.device.reserved_bytes().filter(|bytes| *bytes > 0).unwrap_or_else(module)
    }
}
