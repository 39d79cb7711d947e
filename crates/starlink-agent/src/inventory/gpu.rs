//! GPUs, by what the kernel shows of them. NVIDIA's own library is not asked: to load it takes megabytes, and to ask it
//! wakes every card that sleeps, each minute.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
};

const NVIDIA: &str = "10de";
const AMD: &str = "1002";

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gpus {
    pub(super) count: i64,
    /// Their models, each once.
    pub(super) model: Option<String>,
}

/// A card on the PCI bus, by its numbers.
#[derive(Debug)]
struct Card {
    address: String,
    vendor: String,
    device: String,
}

/// The cards of NVIDIA and AMD that the machine itself can use.
pub(super) fn find(root: &Path) -> Gpus {
    let entries = fs::read_dir(root.join("sys/bus/pci/devices")).into_iter().flatten().flatten();
    let mut cards: Vec<Card> = entries.filter_map(|entry| card(&entry.path())).collect();
    cards.sort_by(|one, other| one.address.cmp(&other.address));
    let mut models: Vec<String> = Vec::new();
    for model in cards.iter().filter_map(|card| model(root, card)) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    Gpus {
        count: i64::try_from(cards.len()).unwrap_or(0),
        model: Some(models.join(", ")).filter(|text| !text.is_empty()),
    }
}

fn card(folder: &Path) -> Option<Card> {
    let number =
        |file: &str| Some(fs::read_to_string(folder.join(file)).ok()?.trim().trim_start_matches("0x").to_owned());
    let class = number("class")?;
    let vendor = number("vendor").filter(|vendor| vendor == NVIDIA || vendor == AMD)?;
    // Handed to a virtual machine, it is not there for anybody else.
    let lent = fs::read_link(folder.join("driver")).is_ok_and(|driver| driver.ends_with("vfio-pci"));
    if lent || !(class.starts_with("0300") || class.starts_with("0302")) {
        return None;
    }
    let address = folder.file_name()?.to_string_lossy().into_owned();
    Some(Card { address, vendor, device: number("device")? })
}

fn model(root: &Path, card: &Card) -> Option<String> {
    let information = root.join("proc/driver/nvidia/gpus").join(&card.address).join("information");
    let by_driver = fs::read_to_string(information).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(line.trim().to_owned())
    });
    let product = root.join("sys/bus/pci/devices").join(&card.address).join("product_name");
    let by_board = || fs::read_to_string(product).ok().map(|text| text.trim().to_owned());
    let by_list = || {
        let lists = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"];
        lists.iter().find_map(|list| listed(BufReader::new(fs::File::open(root.join(list)).ok()?), card))
    };
    by_driver.filter(|text| !text.is_empty()).or_else(by_board).filter(|text| !text.is_empty()).or_else(by_list)
}

/// A card's name in `pci.ids`: vendors begin a line, their devices are indented by a tab.
fn listed(list: impl BufRead, card: &Card) -> Option<String> {
    let mut ours = false;
    for line in list.lines() {
        let line = line.ok()?;
        if let Some(device) = line.strip_prefix('\t').filter(|device| ours && !device.starts_with('\t')) {
            if let Some(name) = device.strip_prefix(card.device.as_str()) {
                return Some(name.trim().to_owned());
            }
        } else if !line.starts_with(['\t', '#']) && !line.is_empty() {
            if ours {
                return None;
            }
            ours = line.starts_with(&format!("{} ", card.vendor));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn card(&self, address: &str, class: &str, vendor: &str, device: &str) {
            let folder = format!("sys/bus/pci/devices/{address}");
            for (file, text) in [("class", class), ("vendor", vendor), ("device", device)] {
                self.write(&format!("{folder}/{file}"), &format!("{text}\n"));
            }
        }
    }

    #[test]
    fn a_machine_without_gpus_has_none() {
        let tree = Tree(tempfile::tempdir().unwrap());
        assert_eq!(find(tree.0.path()), Gpus::default());
        // A console's own graphics, a network card, and NVIDIA's audio device.
        tree.card("0000:00:02.0", "0x030000", "0x1234", "0x1111");
        tree.card("0000:00:03.0", "0x020000", "0x1af4", "0x1000");
        tree.card("0000:01:00.1", "0x040300", "0x10de", "0x1aef");
        assert_eq!(find(tree.0.path()), Gpus::default());
    }

    #[test]
    fn cards_are_counted_and_named_by_whoever_knows_them() {
        let tree = Tree(tempfile::tempdir().unwrap());
        tree.card("0000:01:00.0", "0x030000", "0x10de", "0x2204");
        tree.card("0000:02:00.0", "0x030200", "0x10de", "0x2204");
        tree.card("0000:03:00.0", "0x030000", "0x1002", "0x744c");
        let information = "Model: \t\t NVIDIA GeForce RTX 3090\nIRQ:   \t\t 64\nGPU UUID: \t GPU-1\n";
        for address in ["0000:01:00.0", "0000:02:00.0"] {
            tree.write(&format!("proc/driver/nvidia/gpus/{address}/information"), information);
        }
        let list = "# comment\n1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\t744b  Other\n\
            \t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX]\n\t\t1002 0e3b  A board\n10de  NVIDIA Corporation\n";
        tree.write("usr/share/misc/pci.ids", list);
        let model = "NVIDIA GeForce RTX 3090, Navi 31 [Radeon RX 7900 XT/7900 XTX]".to_owned();
        assert_eq!(find(tree.0.path()), Gpus { count: 3, model: Some(model) });
    }

    #[test]
    fn a_card_that_a_virtual_machine_has_is_not_counted() {
        let tree = Tree(tempfile::tempdir().unwrap());
        tree.card("0000:01:00.0", "0x030000", "0x10de", "0x2204");
        assert_eq!(find(tree.0.path()), Gpus { count: 1, model: None });
        let folder = tree.0.path().join("sys/bus/pci/devices/0000:01:00.0");
        symlink("../../../../bus/pci/drivers/vfio-pci", folder.join("driver")).unwrap();
        assert_eq!(find(tree.0.path()), Gpus::default());
    }
}
