//! What network interfaces are called that count what others count.

/// Beginnings of names that container engines, virtual machines and tunnels give.
const MADE_UP: [&str; 19] = [
    "br-",
    "bridge",
    "cali",
    "cilium",
    "cni",
    "docker",
    "dummy",
    "flannel",
    "ifb",
    "kube",
    "lxc",
    "podman",
    "tailscale",
    "tap",
    "tun",
    "veth",
    "virbr",
    "vnet",
    "wg",
];

/// Whether an interface of this name is none of hardware: what goes through it goes through another one as well, or does
/// not leave the machine. Names only suggest it; who can ask the kernel which are hardware does that first.
#[must_use]
pub fn is_made_up_interface(name: &str) -> bool {
    name == "lo" || MADE_UP.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::is_made_up_interface;

    #[test]
    fn hardware_is_told_from_what_is_made_up() {
        for name in ["lo", "veth1a2b", "docker0", "br-5f2c", "wg0", "virbr0"] {
            assert!(is_made_up_interface(name), "{name}");
        }
        for name in ["eth0", "eno1", "enp3s0f1", "wlan0", "loopy", "ib0"] {
            assert!(!is_made_up_interface(name), "{name}");
        }
    }
}
