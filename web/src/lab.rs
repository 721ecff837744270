//! The engine's lab as JavaScript calls it: strings and bytes in, messages out. Nothing is decided here.

use js_sys::{Array, Uint8Array};
use temper_engine::Device;
use temper_engine::page::{BatchStats, Bytes, Prompt, Settings, Sides, Value, Who};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::js::{Refusal, Worker, js, message};

type Result<T> = std::result::Result<T, Refusal>;

/// What another instance's [`Lab::batch`] said.
fn batch_of(numbers: Option<Vec<f32>>) -> Option<BatchStats> {
    numbers?.try_into().ok().map(BatchStats::from_numbers)
}

/// The engine's state in the worker. `web/page/messages.js` has the types of what comes back.
#[wasm_bindgen]
pub struct Lab {
    lab: temper_engine::Lab,
    host: Worker,
}

#[wasm_bindgen]
impl Lab {
    /// A lab on `"webgpu"` (`software` where that is no hardware) or `"cpu"`, with the page's bundle of files.
    pub async fn open(device: String, software: bool, assets: Vec<u8>) -> Result<Lab> {
        // A panic is a bug; without this its words would be lost in a bare trap.
        std::panic::set_hook(Box::new(|info| web_sys::console::error_1(&info.to_string().into())));
        let device = match device.as_str() {
            "webgpu" => Device::browser(software).await?,
            _ => Device::cpu(),
        };
        let host = Worker::new(device.clone());
        Ok(Self { lab: temper_engine::Lab::new(device, &assets)?, host })
    }

    /// Name of the device.
    pub fn device_name(&self) -> String {
        self.lab.device().name().to_owned()
    }

    /// `SelfTest`
    pub async fn self_test(&self) -> Result<JsValue> {
        Ok(message(self.lab.self_test(&self.host).await?))
    }

    /// `ModelInfo` of the small model that comes with the page.
    pub fn base_model(&mut self) -> Result<JsValue> {
        Ok(message(self.lab.base_model()?))
    }

    /// `ModelInfo` of a visitor's model: the files of a Hugging Face folder, or one GGUF file.
    pub fn own_model(&mut self, names: Vec<String>, contents: Array) -> Result<JsValue> {
        let contents = contents.iter().map(|bytes| Uint8Array::new(&bytes).to_vec());
        Ok(message(self.lab.own_model(names.into_iter().zip(contents).collect())?))
    }

    /// `DataInfo` of a data set that comes with the page.
    pub fn data_set(&mut self, id: &str) -> Result<JsValue> {
        Ok(message(self.lab.data_set(id)?))
    }

    /// `DataInfo` of a visitor's data set.
    pub fn own_data(&mut self, name: String, contents: Vec<u8>) -> Result<JsValue> {
        Ok(message(self.lab.own_data(name, contents)?))
    }

    /// `Fit` of `Settings` as JSON, for both learners in this instance or each in one of its own; `allowed` is in bytes.
    pub fn estimate(&self, settings: &str, apart: bool, allowed: f64) -> Result<JsValue> {
        Ok(message(self.lab.estimate(&Settings::parse(settings)?, apart, allowed as u64)?))
    }

    /// `Begun`, from `Settings` as JSON and the learners that are to be here: `"both"`, `"left"` or `"right"`.
    pub fn start(&mut self, settings: &str, sides: &str) -> Result<JsValue> {
        Ok(message(self.lab.start(Settings::parse(settings)?, Sides::named(sides)?, &self.host)?))
    }

    /// Lets the learners go.
    pub fn end(&mut self) {
        self.lab.end();
    }

    /// How often a run evaluates and samples by itself.
    pub fn every(&mut self, evaluate: f64, sample: f64) {
        self.lab.every(evaluate as u64, sample as u64);
    }

    /// What happens next: `{event, detail}` of `Told`, or null where the run is over.
    pub async fn next(&mut self) -> Result<JsValue> {
        let Some(told) = self.lab.next(&mut self.host).await? else { return Ok(JsValue::NULL) };
        let (event, detail) = told.into_parts();
        let event = Value::Text(event.into());
        Ok(js(Value::Object(vec![("event".into(), event), ("detail".into(), detail)])))
    }

    /// True where nothing is left to tell before the next step.
    pub fn is_between_steps(&self) -> bool {
        self.lab.is_between_steps()
    }

    /// Takes the time of each kernel from now on; refused where the device takes none.
    pub fn begin_profile(&self) -> Result<()> {
        Ok(self.lab.begin_profile()?)
    }

    /// `Profile` of what was launched since.
    pub async fn end_profile(&self) -> Result<JsValue> {
        Ok(message(self.lab.end_profile().await?))
    }

    /// `Standings`
    pub async fn evaluate(&mut self) -> Result<JsValue> {
        Ok(message(self.lab.evaluate(&mut self.host).await?))
    }

    /// `Sample`, from `Prompt[]` as JSON.
    pub async fn sample(&mut self, prompts: &str, tokens: usize) -> Result<JsValue> {
        Ok(message(self.lab.sample(Prompt::list(prompts)?, tokens).await?))
    }

    /// `DocumentText`
    pub fn document(&self, index: usize) -> Result<JsValue> {
        Ok(message(self.lab.document(index)?))
    }

    /// Statistics of the batch that the learner here weighs by, for the other instance's `inspect` and `candidates`.
    pub fn batch(&self) -> Result<Option<Vec<f32>>> {
        Ok(self.lab.batch()?.map(|batch| batch.to_numbers().to_vec()))
    }

    /// `Inspected`
    pub async fn inspect(&mut self, index: usize, who: &str, elsewhere: Option<Vec<f32>>) -> Result<JsValue> {
        Ok(message(self.lab.inspect(index, Who::named(who)?, batch_of(elsewhere)).await?))
    }

    /// `Candidates`
    pub async fn candidates(
        &mut self,
        index: usize,
        position: usize,
        who: &str,
        elsewhere: Option<Vec<f32>>,
    ) -> Result<JsValue> {
        Ok(message(self.lab.candidates(index, position, Who::named(who)?, batch_of(elsewhere)).await?))
    }

    /// `Dispute`
    pub async fn dispute(&mut self, prompt: &str, text: &str, temperature: f32) -> Result<JsValue> {
        Ok(message(self.lab.dispute(prompt, text, temperature).await?))
    }

    /// `Quoted[]`
    pub async fn quotes(&mut self) -> Result<JsValue> {
        Ok(message(self.lab.quotes().await?))
    }

    /// How the first training document begins.
    pub fn beginning(&self) -> Result<String> {
        Ok(self.lab.beginning()?)
    }

    /// Whether `change` would take these.
    pub fn check_change(&self, settings: &str) -> Result<()> {
        Ok(self.lab.check_change(&Settings::parse(settings)?)?)
    }

    /// New objectives, learning rate or schedule, from `Settings` as JSON.
    pub fn change(&mut self, settings: &str) -> Result<()> {
        Ok(self.lab.change(Settings::parse(settings)?)?)
    }

    /// Everything that goes on from here, as one file; with the other instance's, where that has the other learner.
    pub async fn checkpoint(&self, elsewhere: Option<Vec<u8>>) -> Result<JsValue> {
        Ok(message(Bytes(self.lab.checkpoint(elsewhere.as_deref()).await?)))
    }

    /// `Restored`, of the learners that are to be here; they are used after `adopt`.
    pub fn restore(&mut self, saved: Vec<u8>, sides: &str) -> Result<JsValue> {
        Ok(message(self.lab.restore(&saved, Sides::named(sides)?, &self.host)?))
    }

    /// Goes on with what was restored, or lets it go.
    pub fn adopt(&mut self, taken: bool) {
        self.lab.adopt(taken);
    }

    /// `ResultFile[]` of `"left"` or `"right"`.
    pub async fn result(&self, side: &str) -> Result<JsValue> {
        Ok(message(self.lab.result(Who::named(side)?).await?))
    }
}
