use super::*;
use tempfile::TempDir;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    (directory, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn keep(state: &StateDir, token: &str) -> String {
    let file = state.prepare_token().unwrap();
    let place = file.place.clone();
    file.keep(&Secret::from(token.to_owned())).unwrap();
    place
}

#[test]
fn only_its_owner_can_read_it() {
    let (_directory, path) = directory();
    let state = StateDir::open(&path).unwrap();
    keep(&state, "sla_secret");
    state.write_json("agent.json", &1).unwrap();
    assert_eq!(mode(&path), 0o700);
    for name in ["lock", "token", "agent.json"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    assert_eq!(state.token().unwrap().unwrap().expose(), "sla_secret");
    let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    // Others may pass, at most.
    state.let_through().unwrap();
    assert_eq!((mode(&path), mode(&path.join("work"))), (0o711, 0o711));
}

#[test]
fn one_process_uses_it() {
    let (_directory, path) = directory();
    let state = StateDir::open(&path).unwrap();
    let refusal = StateDir::open(&path).unwrap_err().to_string();
    assert!(refusal.contains(&format!("in use by process {}", std::process::id())), "{refusal}");
    let clone = state.clone();
    drop(state);
    assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
    drop(clone);
    StateDir::open(&path).unwrap();
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    let (_directory, path) = directory();
    let state = StateDir::open(&path).unwrap();
    assert!(state.token().unwrap().is_none());
    keep(&state, "sla_secret");
    fs::set_permissions(path.join("token"), fs::Permissions::from_mode(0o640)).unwrap();
    let refusal = state.token().unwrap_err().to_string();
    assert!(refusal.contains("chmod 600") && !refusal.contains("sla_secret"), "{refusal}");
}

#[test]
fn a_copy_is_in_another_place() {
    let (directory, path) = directory();
    let state = StateDir::open(&path).unwrap();
    let place = keep(&state, "sla_secret");
    assert_eq!(state.place().unwrap(), place);
    drop(state);
    assert_eq!(StateDir::open(&path).unwrap().place().unwrap(), place, "a restart");
    let copy = directory.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(path.join("token"), copy.join("token")).unwrap();
    assert_ne!(StateDir::open(&copy).unwrap().place().unwrap(), place);
    let moved = directory.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    assert_eq!(StateDir::open(&moved).unwrap().place().unwrap(), place, "a move");
}

#[test]
fn joining_again_after_a_crash_is_the_same_place() {
    let (_directory, path) = directory();
    let state = StateDir::open(&path).unwrap();
    let first = state.prepare_token().unwrap().place;
    assert_eq!(state.prepare_token().unwrap().place, first);
    assert!(state.token().unwrap().is_none());
}

#[test]
fn what_is_damaged_is_told_by_name() {
    let (_directory, path) = directory();
    let state = StateDir::open(&path).unwrap();
    assert_eq!(state.joined().unwrap(), None);
    let joined = Joined {
        url: "https://a.example".to_owned(),
        server_id: ServerId(7),
        name: Some(Name::trusted("edge".to_owned())),
        installation: None,
        place: None,
    };
    state.keep_joined(&joined).unwrap();
    assert_eq!(state.joined().unwrap(), Some(joined));
    fs::write(path.join("server.json"), r#"{"url": "https://a.example", "server_id": 7, "newer": 1}"#).unwrap();
    assert_eq!(state.joined().unwrap().unwrap().server_id, ServerId(7));
    fs::write(path.join("server.json"), "{").unwrap();
    assert!(state.joined().unwrap_err().to_string().contains("server.json is damaged"));
}
