//! A corner of this machine in which the kernel hands programs for other architectures to QEMU, as the kernel of a
//! machine with QEMU does everywhere. The rest of the machine stays as it is: elsewhere tests rely on such programs
//! being refused.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
};

/// Waits until its users are known, and for the rights that it has then begins anew.
const BEGIN: &str = r#"echo; read -r _; exec sh -c "$0" sh "$@""#;
/// The arguments are the files in which QEMU's package says how programs are recognised. The names are changed, because
/// the machine's own handlers may have them.
const SHELL: &str = r#"
folder=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc binfmt_misc "$folder" || exit
for rule; do
    sed "s/^:[^:]*/&-starlink-$$/" "$rule" >"$folder/register" || exit
done
echo ready
read -r _
for handler in "$folder"/*-starlink-$$; do
    echo -1 >"$handler"
done
"#;

/// A kind of namespace: what programs that make and enter one call it, and `/proc`.
type Kind = (&'static str, &'static str);

const MOUNT: Kind = ("--mount", "mnt");
const USER: Kind = ("--user", "user");

/// The namespaces. What was started in them may outlive the value.
pub struct Emulation {
    shell: Child,
    orders: Option<ChildStdin>,
    kinds: &'static [Kind],
}

impl Emulation {
    /// Of these architectures, as the kernel calls them; where it must be, on the whole machine for a while.
    ///
    /// # Errors
    /// Why there can be none on this machine.
    pub fn start(machines: &[&str]) -> Result<Self, String> {
        Self::apart(machines).or_else(|_refused| Self::within(&[MOUNT], machines))
    }

    /// The same, and never on the whole machine. Handlers belong to a namespace of users since Linux 6.7.
    ///
    /// # Errors
    /// Why there can be none on this machine.
    pub fn apart(machines: &[&str]) -> Result<Self, String> {
        Self::within(&[USER, MOUNT], machines)
    }

    fn within(kinds: &'static [Kind], machines: &[&str]) -> Result<Self, String> {
        let mut shell = Command::new("unshare")
            .args(kinds.iter().map(|(option, _)| option))
            .args(["sh", "-c", BEGIN, SHELL])
            .args(machines.iter().map(|machine| format!("/usr/lib/binfmt.d/qemu-{machine}.conf")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let (orders, told) = (shell.stdin.take(), shell.stdout.take().unwrap());
        let mut told = BufReader::new(told).lines().map_while(Result::ok);
        let mut emulation = Self { shell, orders, kinds };
        if told.next().is_some() && kinds.contains(&USER) {
            emulation.keep_users()?;
        }
        let _ = emulation.orders.as_mut().unwrap().write_all(b"\n");
        match told.next() {
            Some(line) if line == "ready" => Ok(emulation),
            _ => Err(emulation.complaint()),
        }
    }

    /// Everybody is there who they are here.
    fn keep_users(&self) -> Result<(), String> {
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", self.shell.id());
            // One less than there are: container engines take a map of all for none, and try what they may not do.
            fs::write(&path, "0 0 4294967294").map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(())
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        drop(self.orders.take());
        if let Some(mut complaints) = self.shell.stderr.take() {
            let _ = complaints.read_to_string(&mut text);
        }
        format!("no handlers can be registered with the kernel: {}", text.trim())
    }

    /// What makes of a command one that runs there.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        let own = format!("/proc/{}/ns", self.shell.id());
        let enter = self.kinds.iter().map(|(option, name)| format!("{option}={own}/{name}"));
        ["nsenter".to_owned()].into_iter().chain(enter).chain(["--".to_owned()]).collect()
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.shell.wait();
    }
}
