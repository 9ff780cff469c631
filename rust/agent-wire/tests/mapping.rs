//! Mapping rules: which rule wins, what it catches, and which rules are refused.

use agent_wire::mapping::{Mapped, Mapper, MappingRule, Renamed};
use agent_wire::Kind;
use proptest::prelude::*;
use serde_json::json;

fn rules(rules: serde_json::Value) -> Vec<MappingRule> {
    serde_json::from_value(rules).expect("rules")
}

fn mapper(json: serde_json::Value) -> Mapper {
    Mapper::compile(&rules(json)).expect("good rules")
}

fn renamed<'m>(mapper: &'m Mapper, name: &str, kind: Kind) -> Renamed<'m> {
    match mapper.apply(name.as_bytes(), kind) {
        Mapped::Renamed(renamed) => renamed,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_glob_catches_the_parts_under_its_stars() {
    let mapper = mapper(json!([{
        "match": "shop.*.orders.*", "name": "orders_$2",
        "labels": {"country": "$1", "both": "${1}-$2 for $$5"}, "help": "Orders."
    }]));
    let found = renamed(&mapper, "shop.eu.orders.paid", Kind::Counter);
    assert_eq!(found.name, "orders_paid");
    assert_eq!(found.labels, [("both", "eu-paid for $5".to_owned()), ("country", "eu".to_owned())]);
    assert_eq!((found.kind, found.help), (Kind::Counter, "Orders."));
    for other in ["shop.eu.orders", "shop.eu.orders.paid.x", "shop..orders.paid", "shop", "", "."] {
        assert_eq!(mapper.apply(other.as_bytes(), Kind::Counter), Mapped::Unmatched, "{other}");
    }
}

#[test]
fn the_first_rule_in_the_list_wins_whatever_its_type() {
    let mapper = mapper(json!([
        {"match": "a.b.c", "match_metric_type": "gauge", "name": "zero"},
        {"match": "a.*.c", "name": "one_$1"},
        {"match": "^a\\.x\\.", "match_type": "regex", "name": "two"},
        {"match": "a.b.*", "name": "three"},
        {"match": "a.x.*", "name": "four"},
        {"match": "^a\\.", "match_type": "regex", "name": "five"},
        {"match": "*.*.*", "action": "drop"}
    ]));
    let rule = |name: &str, kind| match mapper.apply(name.as_bytes(), kind) {
        Mapped::Renamed(found) => Some(found.rule),
        Mapped::Drop { rule } => Some(rule),
        Mapped::Unmatched => None,
    };
    assert_eq!(rule("a.b.c", Kind::Gauge), Some(0));
    assert_eq!(rule("a.b.c", Kind::Counter), Some(1));
    assert_eq!(rule("a.x.c", Kind::Counter), Some(1));
    assert_eq!(rule("a.x.d", Kind::Counter), Some(2));
    assert_eq!(rule("a.b.d", Kind::Counter), Some(3));
    assert_eq!(rule("a.y.d", Kind::Counter), Some(5));
    assert_eq!(rule("b.b.b", Kind::Counter), Some(6));
    assert_eq!(rule("b.b", Kind::Counter), None);
    assert_eq!(mapper.apply(b"b.b.b", Kind::Set), Mapped::Drop { rule: 6 });
}

#[test]
fn a_regular_expression_catches_numbered_and_named_groups() {
    let mapper = mapper(json!([{
        "match": "^api\\.(?P<verb>get|put)\\.(.+)$", "match_type": "regex",
        "name": "api_${verb}", "labels": {"path": "$2", "verb": "$1"}
    }]));
    let found = renamed(&mapper, "api.get.a.b", Kind::Timer);
    assert_eq!(found.name, "api_get");
    assert_eq!(found.labels, [("path", "a.b".to_owned()), ("verb", "get".to_owned())]);
    assert_eq!(mapper.apply(b"xapi.get.a", Kind::Timer), Mapped::Unmatched);
    let noise = mapper.apply(b"api.get.\xff", Kind::Timer);
    assert!(matches!(noise, Mapped::Unmatched | Mapped::Renamed(_)), "{noise:?}");
}

#[test]
fn a_rule_changes_the_kind_but_never_to_or_from_a_set() {
    let mapper = mapper(json!([{"match": "*", "name": "$1", "type": "distribution"}]));
    assert_eq!(renamed(&mapper, "a", Kind::Timer).kind, Kind::Distribution);
    assert_eq!(renamed(&mapper, "a", Kind::Gauge).kind, Kind::Distribution);
    assert_eq!(renamed(&mapper, "a", Kind::Set).kind, Kind::Set);
}

#[test]
fn a_rule_that_cannot_work_is_refused_with_its_position() {
    let bad = [
        json!({"match": "a.*", "name": "$2"}),
        json!({"match": "a.*", "name": "$0"}),
        json!({"match": "a.*", "name": "$"}),
        json!({"match": "a.*", "name": "${x}"}),
        json!({"match": "a.*", "name": "${1"}),
        json!({"match": "a.*"}),
        json!({"match": "a.*", "name": ""}),
        json!({"match": "a.b*", "name": "x"}),
        json!({"match": "a.**", "name": "x"}),
        json!({"match": "", "name": "x"}),
        json!({"match": "a..b", "name": "x"}),
        json!({"match": vec!["a"; 33].join("."), "name": "x"}),
        json!({"match": "(", "match_type": "regex", "name": "x"}),
        json!({"match": "(a{9999}){9999}", "match_type": "regex", "name": "x"}),
        json!({"match": "a", "name": "x", "labels": {"": "y"}}),
        json!({"match": "a", "name": "x".repeat(513)}),
        json!({"match": "*", "name": "$1".repeat(17)}),
        json!({"match": "a", "name": "x", "match_metric_type": "set", "type": "counter"}),
    ];
    for rule in bad {
        let all = rules(json!([{"match": "ok", "action": "drop"}, rule]));
        let error = Mapper::compile(&all).expect_err(&rule.to_string());
        assert_eq!(error.rule, 1, "{error}");
        assert!(!error.detail.is_empty());
    }
}

#[test]
fn every_mistake_of_every_rule_is_named() {
    let errors = Mapper::errors(&rules(json!([
        {"match": "(", "match_type": "regex", "match_metric_type": "set", "type": "counter"},
        {"match": "ok", "action": "drop"},
        {"match": "a.*", "name": "$2", "labels": {"x": "$3", "y": "$1"}},
    ])));
    let found: Vec<_> = errors.iter().map(|error| (error.rule, error.detail.as_str())).collect();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[0].0 == 0 && found[0].1.contains("no usable expression"), "{found:?}");
    assert_eq!(found[1], (0, "`name` is missing"));
    assert_eq!(found[2], (0, "a set cannot become a counter"));
    assert_eq!(found[3], (2, "in \"$2\", $2 catches nothing"));
    assert_eq!(found[4], (2, "label \"x\": in \"$3\", $3 catches nothing"));
}

#[test]
fn an_unknown_key_of_a_rule_is_an_error() {
    let rule = json!({"match": "a", "name": "x", "ttl": 5});
    assert!(serde_json::from_value::<MappingRule>(rule).is_err());
}

#[test]
fn no_rules_match_nothing() {
    let mapper = Mapper::compile(&[]).expect("no rules");
    assert!(mapper.is_empty());
    assert_eq!(mapper.apply(b"a", Kind::Gauge), Mapped::Unmatched);
}

proptest! {
    /// The tree against the plain way: try each glob in turn, part by part.
    #[test]
    fn the_tree_finds_what_trying_every_glob_finds(
        globs in proptest::collection::vec(
            proptest::collection::vec("[ab*]", 1..5), 1..12),
        names in proptest::collection::vec(
            proptest::collection::vec("[abc]{0,1}", 1..5), 1..20),
    ) {
        let rule = |glob: &Vec<String>| json!({"match": glob.join("."), "name": "x"});
        let all: Vec<_> = globs.iter().map(rule).collect();
        let mapper = mapper(json!(all));
        for name in names {
            let model = globs.iter().position(|glob| {
                glob.len() == name.len()
                    && glob.iter().zip(&name).all(|(g, n)| !n.is_empty() && (g == "*" || g == n))
            });
            let found = match mapper.apply(name.join(".").as_bytes(), Kind::Gauge) {
                Mapped::Renamed(found) => Some(found.rule),
                _ => None,
            };
            prop_assert_eq!(found, model);
        }
    }
}

#[test]
fn a_rule_can_say_which_histogram_it_makes() {
    let rule = |json: &str| serde_json::from_str::<MappingRule>(json).expect("a rule");
    let both = r#"{"match": "a", "name": "a", "buckets": [1, 2], "native": true}"#;
    let down = r#"{"match": "a", "name": "a", "buckets": [2, 1]}"#;
    let told: Vec<String> =
        Mapper::errors(&[rule(both), rule(down)]).iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2);
    assert!(told[0].contains("exclude") && told[1].contains("ascend"), "{told:?}");
}
