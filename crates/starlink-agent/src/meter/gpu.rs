//! How busy GPUs are: those of NVIDIA by NVIDIA's library, which is loaded where the kernel shows that its driver has a
//! card, and those of AMD by what the kernel shows of them. A card that sleeps is not asked, since that would wake it.

use super::{
    float,
    heat::{folders, sleeps},
};
use domain::observability::{Metric, Readings};
use nvml_wrapper::{Nvml, error::NvmlError};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// For how many readings the library is left alone after it has failed.
const REST: u32 = 60;

/// What one card says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Card {
    /// In percent.
    busy: Option<f64>,
    memory: Option<Memory>,
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    used: u64,
    total: u64,
}

/// The GPUs of a machine.
pub(super) struct Gpus {
    root: PathBuf,
    /// NVIDIA's library, if it is not to be looked for where the system has its libraries.
    library: Option<OsString>,
    nvml: Option<Nvml>,
    rest: u32,
    has_complained: bool,
}

impl Gpus {
    pub(super) fn new(root: &Path, library: Option<OsString>) -> Self {
        Self { root: root.to_owned(), library, nvml: None, rest: 0, has_complained: false }
    }

    pub(super) fn read(&mut self) -> Readings {
        let mut cards: Vec<Card> =
            folders(&self.root.join("sys/class/drm"), "card").filter_map(|card| of_amd(&card.join("device"))).collect();
        if self.has_nvidia() {
            cards.extend(self.of_nvidia());
        }
        summary(&cards)
    }

    /// Whether NVIDIA's driver has cards, and all of them are awake.
    fn has_nvidia(&self) -> bool {
        let mut cards = folders(&self.root.join("proc/driver/nvidia/gpus"), "").peekable();
        let pci = self.root.join("sys/bus/pci/devices");
        cards.peek().is_some() && cards.all(|card| card.file_name().is_none_or(|address| !sleeps(&pci.join(address))))
    }

    fn of_nvidia(&mut self) -> Vec<Card> {
        if self.rest > 0 {
            self.rest -= 1;
            return Vec::new();
        }
        match self.ask() {
            Ok(cards) => {
                self.has_complained = false;
                cards
            }
            Err(error) => {
                // As after an update of the driver, the library may have to be loaded anew.
                (self.nvml, self.rest) = (None, REST);
                if !std::mem::replace(&mut self.has_complained, true) {
                    tracing::warn!(%error, "NVIDIA's library does not say how busy the GPUs are");
                }
                Vec::new()
            }
        }
    }

    fn ask(&mut self) -> Result<Vec<Card>, NvmlError> {
        let nvml = match &self.nvml {
            Some(nvml) => nvml,
            None => self.nvml.insert(load(self.library.as_ref())?),
        };
        (0..nvml.device_count()?).map(|index| of_nvml(nvml, index)).collect()
    }
}

fn load(library: Option<&OsString>) -> Result<Nvml, NvmlError> {
    match library {
        Some(library) => Nvml::builder().lib_path(library).init(),
        None => Nvml::init(),
    }
}

/// What a card cannot say is absent: parts of a divided card have no utilization.
fn of_nvml(nvml: &Nvml, index: u32) -> Result<Card, NvmlError> {
    let device = match nvml.device_by_index(index) {
        // It may have fallen off the bus, or belong to somebody else; that says nothing of the others.
        Err(NvmlError::GpuLost | NvmlError::NoPermission) => return Ok(Card::default()),
        device => device?,
    };
    let busy = device.utilization_rates().ok().map(|rates| f64::from(rates.gpu));
    let memory = device.memory_info().ok().map(|memory| Memory { used: memory.used, total: memory.total });
    Ok(Card { busy, memory })
}

/// A card that AMD's driver has; `None` if it is none or sleeps.
fn of_amd(device: &Path) -> Option<Card> {
    let number = |file: &str| fs::read_to_string(device.join(file)).ok()?.trim().parse::<u64>().ok();
    // Outputs have names like cards, and no such files.
    if sleeps(device) {
        return None;
    }
    let busy = number("gpu_busy_percent").map(float);
    let memory = number("mem_info_vram_used").zip(number("mem_info_vram_total"));
    let memory = memory.map(|(used, total)| Memory { used, total });
    (busy.is_some() || memory.is_some()).then_some(Card { busy, memory })
}

/// The mean of how busy they are, and the part of all their memory that is in use.
fn summary(cards: &[Card]) -> Readings {
    let busy: Vec<f64> = cards.iter().filter_map(|card| card.busy).collect();
    let memory = cards.iter().filter_map(|card| card.memory);
    let (used, total) =
        memory.fold((0.0, 0.0), |(used, total), memory| (used + float(memory.used), total + float(memory.total)));
    let count = u32::try_from(busy.len()).unwrap_or(u32::MAX);
    let mut readings = Readings::default();
    readings.set(Metric::GpuUtilization, (count > 0).then(|| busy.iter().sum::<f64>() / f64::from(count)));
    readings.set(Metric::GpuMemoryUtilization, (total > 0.0).then(|| 100.0 * used / total));
    readings
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod tests;
