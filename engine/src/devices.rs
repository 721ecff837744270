//! Several devices in one machine, as `--device a,b` names them: read here once.

use crate::device::Device;
#[cfg(not(target_family = "wasm"))]
use crate::error::{Error, Result};
#[cfg(not(target_family = "wasm"))]
use crate::host::Clock;
#[cfg(not(target_family = "wasm"))]
use crate::kernels::multiplier::Compute;

/// Where a run computes: one device, or several that share a model's blocks in this order. Never empty.
#[derive(Clone)]
pub struct Devices(Vec<Device>);

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self(vec![device])
    }
}

impl Devices {
    /// The devices for a `--device` argument, and the one line that says why they were chosen: names as of
    /// [`Device::choose`], with commas between them.
    ///
    /// # Errors
    /// As [`Device::choose`]; [`Error::Device`] where a device is named twice, or a name is empty.
    #[cfg(not(target_family = "wasm"))]
    pub fn choose(wanted: Option<&str>, clock: &dyn Clock) -> Result<(Self, String)> {
        let Some(list) = wanted.filter(|list| list.contains(',') && !names_an_adapter(list)) else {
            let (device, why) = Device::choose(wanted, clock)?;
            return Ok((device.into(), why));
        };
        let mut devices: Vec<Device> = Vec::new();
        let mut reasons = Vec::new();
        let refused = |problem: String| Err(Error::Device { problem });
        for name in list.split(',').map(str::trim) {
            if name.is_empty() {
                return refused(format!(
                    "{list:?} has an empty name in it; write names with commas between them: cpu,vulkan:0"
                ));
            }
            let (device, why) = Device::choose(Some(name), clock)?;
            if devices.iter().any(|other| other.name() == device.name()) {
                return refused(format!("{list:?} names {} twice; name each device once", device.name()));
            }
            devices.push(device);
            reasons.push(why);
        }
        Ok((Self(devices), reasons.join("; ")))
    }

    /// These, in this order; none where there are none.
    pub fn new(devices: Vec<Device>) -> Option<Self> {
        (!devices.is_empty()).then_some(Self(devices))
    }

    /// The same with the kernels for products settled for this precision on each, and what there is to say about it
    /// ([`Device::computing`]).
    ///
    /// # Errors
    /// As that.
    #[cfg(not(target_family = "wasm"))]
    pub fn computing(&self, compute: Compute, clock: &dyn Clock) -> Result<(Self, Vec<String>)> {
        let settled: Vec<_> = self.0.iter().map(|device| device.computing(compute, clock)).collect::<Result<_>>()?;
        let (devices, said): (Vec<_>, Vec<_>) = settled.into_iter().unzip();
        Ok((Self(devices), said.concat()))
    }

    /// All of them, in order.
    pub fn all(&self) -> &[Device] {
        &self.0
    }

    /// Their names, for people.
    pub fn names(&self) -> String {
        self.0.iter().map(Device::name).collect::<Vec<_>>().join(", ")
    }

    /// True where one of them is the CPU, whose memory is the host's.
    pub fn have_cpu(&self) -> bool {
        self.0.iter().any(Device::is_cpu)
    }

    /// Bytes that the memory pools of those that are no CPU have reserved; none where none tells.
    pub fn reserved_bytes(&self) -> Option<u64> {
        self.others().filter_map(Device::reserved_bytes).reduce(u64::saturating_add)
    }

    /// Most that those held which are no CPU, each when somebody asked ([`Device::peak_bytes`]); none where none tells.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.others().filter_map(Device::peak_bytes).reduce(u64::saturating_add)
    }

    fn others(&self) -> impl Iterator<Item = &Device> {
        self.0.iter().filter(|device| !device.is_cpu())
    }
}

/// True where an adapter's own name has this in it: such a name may have commas.
#[cfg(not(target_family = "wasm"))]
fn names_an_adapter(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    crate::device::adapters().iter().any(|adapter| adapter.name.to_lowercase().contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is timed that is named.
    struct NoClock;

    impl Clock for NoClock {
        fn seconds(&self) -> f64 {
            panic!("a device that was named was timed")
        }
    }

    fn choose(list: &str) -> Result<(Devices, String)> {
        Devices::choose(Some(list), &NoClock)
    }

    fn refused(list: &str) -> String {
        let error = choose(list).err().unwrap_or_else(|| panic!("{list} is no list of devices"));
        assert!(error.is_bad_input());
        error.to_string()
    }

    #[test]
    fn a_list_names_each_device_once_and_says_what_is_wrong_with_it_otherwise() {
        let (devices, why) = choose("cpu").unwrap();
        assert_eq!((devices.all().len(), devices.names().as_str(), why.as_str()), (1, "CPU", "CPU, as asked for"));
        assert!(refused("cpu,CPU").contains("names CPU twice"));
        assert!(refused("cpu,").contains("an empty name"));
        assert!(refused("cpu, gpu9").contains("there is no device \"gpu9\""));
    }

    #[test]
    fn a_list_is_taken_in_its_order_and_a_name_with_a_comma_in_it_is_one_device() {
        let adapters = crate::device::adapters();
        let Some(adapter) = adapters.first() else { return };
        let (devices, why) = choose(&format!("{}, cpu", adapter.id)).unwrap();
        assert!(!devices.all()[0].is_cpu() && devices.all()[1].is_cpu());
        assert!(devices.have_cpu() && why.contains(&adapter.id) && why.ends_with("; CPU, as asked for"), "{why}");
        assert!(refused(&format!("{0},{0}", adapter.id)).contains("twice"));
        let (one, _) = choose(&adapter.name).unwrap();
        assert_eq!(one.all().len(), 1);
    }
}
