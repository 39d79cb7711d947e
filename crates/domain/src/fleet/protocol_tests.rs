use super::*;
use serde_json::json;

#[test]
fn the_newest_version_that_both_speak_is_spoken() {
    assert_eq!(negotiate(&[1, 2], &[2, 3]), Some(2));
    assert_eq!(negotiate(&[1, 2], &[1]), Some(1));
    assert_eq!(negotiate(&[1], &[2, 1, 3]), Some(1));
    assert_eq!(negotiate(&[2, 3], &[1]), None);
    assert_eq!(negotiate(&[1], &[]), None);
}

#[test]
fn what_a_newer_side_adds_is_ignored() {
    let deliveries: Deliveries = serde_json::from_value(json!({
        "operations": [{"id": 7, "expires_in_seconds": 60, "order": {"kind": "fly", "to": "moon"}, "colour": "red"}],
        "streams": [{"id": "s", "source": {"kind": "video", "width": 1}}],
        "weather": "fine",
    }))
    .unwrap();
    assert!(matches!(deliveries.operations.first().unwrap().order, Order::Unknown));
    assert!(matches!(deliveries.streams.first().unwrap().source, StreamSource::Unknown));
    assert_eq!(deliveries.cancel, []);
}

#[test]
fn an_older_agent_may_leave_out_what_it_does_not_know() {
    let report: ResultReport = serde_json::from_value(json!({"session": "a", "ending": "completed"})).unwrap();
    assert_eq!(report.end.ending, Ending::Completed);
    assert_eq!(report.end.exit_code, None);
}

#[test]
fn no_token_is_printed() {
    let enrolled = Enrolled { server_id: ServerId(1), token: "sla_secret".to_owned() };
    assert!(!format!("{enrolled:?}").contains("secret"));
    let request: EnrollRequest = serde_json::from_value(json!({
        "join_token": "slj_secret", "name": "edge-1", "place": "p", "protocols": [1],
        "inventory": {"architecture": "x86_64", "agent_version": "1",
            "capacity": {"cpu_millis": 1, "memory_mib": 1, "storage_mib": 1, "gpus": 0}},
    }))
    .unwrap();
    assert_eq!(request.join_token, "slj_secret");
    assert!(!format!("{request:?}").contains("secret"));
}

#[test]
fn what_came_of_an_operation_is_bounded_and_obeyed_by_no_terminal() {
    let told = |outcome| End { outcome: Some(Box::new(outcome)), ..End::without_code(Ending::Completed, "") };
    let kept = KeptImage { image_id: "sha256:0".to_owned(), reason: format!("\u{1b}[2J{}", "x".repeat(2000)) };
    let pruned =
        Outcome::Pruned { removed: vec!["sha256:1\n".to_owned(); 6000], kept: vec![kept; 6000], freed_bytes: 7 };
    let Some(Outcome::Pruned { removed, kept, freed_bytes: 7 }) = told(pruned).bounded().outcome.map(|told| *told)
    else {
        panic!("something else")
    };
    assert_eq!((removed.len(), kept.len()), (5000, 5000));
    assert!(removed.iter().all(|id| id == "sha256:1"));
    assert!(kept.iter().all(|kept| kept.reason.chars().count() == 1000 && kept.reason.starts_with("[2Jx")));
    let pulled = Outcome::Pulled { image_id: "a\r".to_owned(), digest: Some("d".repeat(1001)) };
    let expected = Outcome::Pulled { image_id: "a".to_owned(), digest: Some("d".repeat(1000)) };
    assert_eq!(told(pulled).bounded().outcome, Some(Box::new(expected)));
    let end = End::without_code(Ending::Completed, "done");
    assert_eq!(end.bounded(), end);
}
