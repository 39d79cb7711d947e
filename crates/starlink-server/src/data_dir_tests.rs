use super::*;
use crate::adapters::OsEntropy;
use tempfile::TempDir;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn directory() -> (TempDir, DataDir) {
    let outer = tempfile::tempdir().unwrap();
    let inner = DataDir::open(&outer.path().join("a/b")).unwrap();
    (outer, inner)
}

#[test]
fn a_new_data_directory_is_for_its_owner_alone() {
    let (_outer, data) = directory();
    assert_eq!(mode(data.path()), 0o700);
    DataDir::open(data.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_what_to_do() {
    let (_outer, data) = directory();
    fs::write(data.join("file"), "").unwrap();
    let error = DataDir::open(&data.join("file/below")).unwrap_err().to_string();
    assert!(error.contains("file/below") && error.contains("--data-dir"), "{error}");
    assert!(DataDir::open(&data.join("file")).is_err());
}

#[test]
fn a_second_server_learns_who_holds_the_directory() {
    let (_outer, data) = directory();
    let lock = data.lock().unwrap();
    let error = data.lock().unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(lock);
    data.lock().unwrap();
}

#[test]
fn what_a_dead_process_left_in_the_lock_does_not_matter() {
    let (_outer, data) = directory();
    fs::write(data.join("lock"), "4194304 and more\n").unwrap();
    let _lock = data.lock().unwrap();
    assert_eq!(fs::read_to_string(data.join("lock")).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn a_secret_file_replaces_what_was_there_and_leaves_nothing_beside_it() {
    let (_outer, data) = directory();
    fs::write(data.join("secret"), "a longer old text").unwrap();
    write_secret(&data.join("secret"), b"new").unwrap();
    assert_eq!(fs::read(data.join("secret")).unwrap(), b"new");
    assert_eq!(mode(&data.join("secret")), 0o600);
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    let error = write_secret(&data.join("absent/secret"), b"new").unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("absent/secret"), "{error}");
}

#[test]
fn the_administrators_token_is_for_the_owner_alone() {
    let (_outer, data) = directory();
    let path = data.write_admin_token(&Secret::from("slo_1".to_owned())).unwrap();
    assert_eq!(path, data.join("admin.token"));
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("slo_1\n", 0o600));
}

#[test]
fn a_key_is_made_once_and_found_from_then_on() {
    let (_outer, data) = directory();
    let path = data.join("audit.key");
    assert_eq!(read_key(&path).unwrap(), None);
    let made = read_or_create_key(&path, &OsEntropy).unwrap();
    assert_eq!((made.origin, mode(&path)), (KeyOrigin::Created, 0o600));
    let found = read_or_create_key(&path, &OsEntropy).unwrap();
    assert_eq!(found, FileKey { origin: KeyOrigin::Found, ..made.clone() });
    assert_eq!(read_key(&path).unwrap(), Some(made.bytes));
    assert!(!format!("{made:?}").contains("bytes"));
}

#[test]
fn two_processes_that_make_a_key_at_once_end_up_with_one() {
    let (_outer, data) = directory();
    let path = data.join("audit.key");
    let makers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || read_or_create_key(&path, &OsEntropy).unwrap())
        })
        .collect();
    let keys: Vec<FileKey> = makers.into_iter().map(|maker| maker.join().unwrap()).collect();
    let there = read_key(&path).unwrap().unwrap();
    assert!(keys.iter().all(|key| key.bytes == there));
    assert_eq!(keys.iter().filter(|key| key.origin == KeyOrigin::Created).count(), 1);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let (_outer, data) = directory();
    let path = data.join("audit.key");
    read_or_create_key(&path, &OsEntropy).unwrap();
    for exposed in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
        let error = read_or_create_key(&path, &OsEntropy).unwrap_err().to_string();
        assert!(error.contains("run chmod 600") && error.contains(&format!("mode {exposed:o}")), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(read_or_create_key(&path, &OsEntropy).is_ok());
}

#[test]
fn a_file_that_is_no_key_is_refused_and_kept() {
    let (_outer, data) = directory();
    let path = data.join("audit.key");
    for content in ["", "secret", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &format!("+{}", "0".repeat(63))] {
        write_secret(&path, content.as_bytes()).unwrap();
        let error = read_or_create_key(&path, &OsEntropy).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits") && error.contains("backup"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn hexadecimal_is_read_as_it_was_written() {
    let bytes: [u8; 32] = std::array::from_fn(|index| u8::try_from(index * 8).unwrap());
    assert_eq!(unhex(hex(&bytes).as_bytes()), Some(bytes));
    assert_eq!(unhex(hex(&bytes).to_uppercase().as_bytes()), Some(bytes));
}
