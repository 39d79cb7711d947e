//! Texts, keywords, order and times: the same on both databases, and as in the domain.

use crate::{
    on_both,
    store::{Store, at_once, change, entry, name, new_pool, new_server, new_user, tags},
};
use chrono::{DateTime, TimeDelta};
use domain::{
    fleet::{NewServer, Server, ServerFilter, ServerSort, Servers},
    identity::Users,
    page::PageRequest,
    pools::{NewPool, PoolFilter, Pools},
    text::{MAX_NAME, Name},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use std::{collections::BTreeSet, sync::Arc};

on_both!(
    texts_come_back_as_they_went_in,
    names_sort_by_code_point,
    a_keyword_is_text_not_a_pattern,
    any_keyword_finds_what_contains_it,
    times_keep_their_microseconds,
);

const WHOLE: PageRequest = PageRequest { limit: 1000, after: None };

/// Texts that break what is built by hand: quotes, patterns, other scripts, and the longest name.
fn odd_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "'",
        "\"",
        "it's",
        "a\"b",
        "\\",
        "a\\b",
        "%",
        "_",
        "--",
        ";",
        "$1",
        "?",
        ":x",
        "{}",
        "[]",
        "NULL",
        "🦀",
        "👩‍👩‍👧‍👦",
        "é",
        "e\u{301}",
        "服务器",
        "سيرفر",
        "İstanbul",
        "ß",
        "ẞ",
        "Σίσυφος",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10ffff}",
        "a b",
        "\u{feff}bom",
        "x\u{200b}y",
    ]
    .map(str::to_owned)
    .into();
    texts.extend(["x", "'", "\"", "é", "🦀"].map(|text| text.repeat(MAX_NAME)));
    texts
}

async fn texts_come_back_as_they_went_in(store: Store) {
    for text in odd_texts() {
        let new = NewServer {
            location: Some(text.clone()),
            cluster: Some(text.clone()),
            zone: Some(text.clone()),
            gpu_model: Some(text.clone()),
            tags: tags(&[("key", &text)]),
            ..new_server(&text)
        };
        let server = store.servers.create(new, change("server.create")).await.unwrap().value;
        assert_eq!(store.servers.get(server.id).await.unwrap(), server);
        let exactly = ServerFilter {
            cluster: Some(text.clone()),
            zone: Some(text.clone()),
            tags: vec![("key".to_owned(), text.clone())],
            ..ServerFilter::default()
        };
        let found = store.list(exactly, ServerSort::NEWEST_FIRST, WHOLE).await.unwrap();
        assert_eq!(found.items, [server], "{text:?}");
        let new = NewPool { description: Some(text.clone()), labels: tags(&[("key", &text)]), ..new_pool(&text) };
        let pool = store.pools.create(new, change("pool.create")).await.unwrap().value;
        assert_eq!(store.pools.get(pool.id).await.unwrap().pool, pool);
        let user = store.users.create(new_user(&text), change("user.create")).await.unwrap().value;
        assert_eq!(store.users.find_by_name(&text).await.unwrap(), Some((user, format!("hash-{text}"))));
        assert_eq!(store.last_row().await.entry.after.unwrap()["name"], text);
    }
    store.check_chain(3 * odd_texts().len()).await;
}

/// Names as people might choose them, the same in every run.
fn sample_names(count: usize) -> BTreeSet<Name> {
    let mut runner = TestRunner::deterministic();
    let strategy = "[a-cA-C0-9%_\\\\ .'äÄßéÉıİΣσς服🦀-]{1,6}|\\PC{1,8}";
    let mut names: BTreeSet<Name> = odd_texts().iter().map(|text| name(text)).collect();
    while names.len() < count {
        names.extend(Name::parse(strategy.new_tree(&mut runner).unwrap().current()));
    }
    names
}

/// Registers servers of these names, in no particular order.
async fn servers(store: Store, names: &BTreeSet<Name>) -> (Arc<Store>, Vec<Server>) {
    let store = Arc::new(store);
    let mut shuffled: Vec<Name> = names.iter().cloned().collect();
    shuffled.sort_by_key(|name| domain::digest::sha256_hex(name.as_str().as_bytes()));
    let servers = at_once(shuffled.into_iter().map(|name| {
        let store = Arc::clone(&store);
        async move { store.server(name.as_str()).await }
    }));
    let servers = servers.await;
    (store, servers)
}

async fn names_sort_by_code_point(store: Store) {
    let names = sample_names(400);
    let (store, _) = servers(store, &names).await;
    for (text, descending) in [("name", false), ("-name", true)] {
        let sort = ServerSort::parse(text).unwrap();
        for limit in [1000, 37] {
            let list = |page| store.list(ServerFilter::default(), sort, page);
            let listed = crate::store::walk(limit, list, || async {}).await;
            let mut listed: Vec<Name> = listed.into_iter().map(|server| server.name).collect();
            if descending {
                listed.reverse();
            }
            assert!(listed.iter().eq(&names), "sorted by {text}, {limit} at a time");
        }
    }
}

async fn a_keyword_is_text_not_a_pattern(store: Store) {
    let texts = ["100%", "1000", "a_b", "axb", "c\\d", "cd", "C%D", "50%_\\x"];
    for text in texts {
        store.server(text).await;
        store.pool(text).await;
    }
    let cases: [(&str, &[&str]); 12] = [
        ("", &texts),
        ("%", &["100%", "50%_\\x", "C%D"]),
        ("_", &["50%_\\x", "a_b"]),
        ("\\", &["50%_\\x", "c\\d"]),
        ("0%", &["100%", "50%_\\x"]),
        ("a_B", &["a_b"]),
        ("C\\D", &["c\\d"]),
        ("c%d", &["C%D"]),
        ("%_\\", &["50%_\\x"]),
        ("\\%", &[]),
        ("'", &[]),
        ("\0", &[]),
    ];
    for (keyword, expected) in cases {
        let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        let keyword = Some(keyword.to_owned());
        let filter = ServerFilter { keyword: keyword.clone(), ..ServerFilter::default() };
        let page = store.list(filter, ServerSort::NEWEST_FIRST, WHOLE).await.unwrap();
        let found: BTreeSet<String> = page.items.iter().map(|server| server.name.to_string()).collect();
        assert_eq!(found, expected, "servers with {keyword:?}");
        let page = store.pools.list(PoolFilter { keyword: keyword.clone(), kind: None }, WHOLE).await.unwrap();
        let found: BTreeSet<String> = page.items.iter().map(|summary| summary.pool.name.to_string()).collect();
        assert_eq!(found, expected, "pools with {keyword:?}");
    }
}

async fn any_keyword_finds_what_contains_it(store: Store) {
    let names = sample_names(300);
    let (store, servers) = servers(store, &names).await;
    let parts = names.iter().step_by(4).flat_map(|name| {
        let text: Vec<char> = name.as_str().chars().collect();
        let middle: String = text.iter().skip(text.len() / 3).take(3).collect();
        [middle.to_uppercase(), middle.to_lowercase(), middle]
    });
    for keyword in parts {
        let filter = ServerFilter { keyword: Some(keyword.clone()), ..ServerFilter::default() };
        let found = store.list(filter, ServerSort::parse("id").unwrap(), WHOLE).await.unwrap().items;
        let found: BTreeSet<_> = found.iter().map(|server| &server.name).collect();
        let contains = |server: &&Server| server.search_text().contains(&keyword.to_lowercase());
        let expected: BTreeSet<_> = servers.iter().filter(contains).map(|server| &server.name).collect();
        assert_eq!(found, expected, "{keyword:?}");
    }
}

async fn times_keep_their_microseconds(store: Store) {
    let epoch = DateTime::UNIX_EPOCH;
    let times = [
        0,
        1,
        999_999,
        1_000_001,
        -1,
        -999_999,
        1_767_225_600_123_456,
        253_402_300_799_999_999,
        -62_135_596_800_000_000,
    ];
    for (n, us) in times.into_iter().enumerate() {
        let at = epoch + TimeDelta::microseconds(us);
        let entry = domain::audit::AuditEntry { created_at: at, ..entry("server.create") };
        let server = store.servers.create(new_server(&format!("edge-{n}")), entry.into()).await.unwrap().value;
        assert_eq!((server.created_at, server.updated_at), (at, at));
        assert_eq!(store.servers.get(server.id).await.unwrap(), server);
        assert_eq!(store.last_row().await.entry.created_at, at);
    }
    store.check_chain(times.len()).await;
}
