//! Any input: no panic, bounded memory, every sample counted once, and what was accepted is within
//! the limits.

use agent_wire::framing;
use agent_wire::push_json::{self, Body};
use agent_wire::sample::INCREMENT_END;
use agent_wire::statsd::{parse_line, Item, Value};
use agent_wire::{labels, name, prometheus_text, Kind, Limits, Reject};
use proptest::prelude::*;

/// Checks what a parsed line promises.
fn check_line(line: &[u8], limits: &Limits) -> Result<(), TestCaseError> {
    let Ok(Item::Metric(metric)) = parse_line(line, limits) else { return Ok(()) };
    prop_assert!((1..=limits.name_bytes_max).contains(&metric.name.len()));
    prop_assert!(metric.rate >= limits.rate_min && metric.rate <= 1.0);
    prop_assert!(!name::family(metric.kind, metric.name).name.is_empty());
    let count = metric.values.clone().count();
    prop_assert!((1..=limits.values_max).contains(&count));
    for value in metric.values {
        match value {
            Value::Number(number) => {
                prop_assert!(number.is_finite() && metric.kind != Kind::Set);
                if metric.kind == Kind::Counter {
                    prop_assert!((0.0..INCREMENT_END).contains(&number));
                }
            }
            Value::Delta(number) => {
                prop_assert!(number.is_finite() && metric.kind == Kind::Gauge);
            }
            Value::Set(member) => prop_assert!(!member.is_empty() && metric.kind == Kind::Set),
        }
    }
    let mut text = String::new();
    if labels::from_statsd_tags(metric.tags, limits, &mut text).is_ok() {
        prop_assert!(labels::parse(&text).count() <= limits.labels_max);
    }
    Ok(())
}

/// Text that looks like the protocol, so that deep branches are reached.
const LIKE_STATSD: &str = "(_e\\{[0-9]{0,2},?[0-9]{0,2}\\}?:?|_sc\\||_ack\\|)?[a-z.é:|]{0,6}:?\
    ([+-]?[0-9.e:n]{0,6}\\|)?(c|g|ms|h|d|s|x)?\
    (\\|(@[0-9.e-]{0,5}|#[a-z:,_]{0,9}|T[0-9]{0,4}|c:x|e:|card:low|z)){0,4}";

const LIKE_TEXT: &str = "(# (HELP|TYPE) [a-c]{0,2} (counter|gauge|histogram|summary|x)?\n|\
    [a-c]{0,2}(_bucket|_sum|_count)?(\\{(le|quantile|a)?=?\"?[0-9.+Inf\\\\n]{0,4}\"?,?\\})? ?\
    -?[0-9.]{0,3}( [0-9]{1,3})?\n){0,12}";

const LIKE_JSON: &str = "\\[?(\\{(\"(name|type|value|values|labels|rate|unit)\": ?\
    (\"[a-z\\\\]{0,5}\"|\"counter\"|\"set\"|-?[0-9.e]{1,5}|null|\\[[0-9,]{0,5}\\]|\
    \\{\"a\":[0-9\"]{1,3}\\}),?){0,5}\\}[,\n ]?){0,4}\\]?";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_statsd_bytes_give_an_item_or_a_reason(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        for line in framing::lines(&bytes) {
            check_line(line, &Limits::default())?;
        }
    }

    #[test]
    fn any_statsd_like_text_gives_an_item_or_a_reason(line in LIKE_STATSD) {
        check_line(line.as_bytes(), &Limits::default())?;
    }

    #[test]
    fn a_good_line_is_read_back_as_it_was_written(
        name in "[a-zA-Z_.]{1,20}",
        (kind, letter) in proptest::sample::select(vec![
            (Kind::Counter, "c"),
            (Kind::Gauge, "g"),
            (Kind::Timer, "ms"),
            (Kind::Histogram, "h"),
            (Kind::Distribution, "d"),
        ]),
        values in proptest::collection::vec(0.0f64..1e9, 1..6),
        rate in 1u32..=100,
        tags in proptest::collection::vec("[a-z]{1,4}:[a-z0-9/]{1,4}", 0..5),
        order in any::<bool>(),
    ) {
        let rate = f64::from(rate) / 100.0;
        let tags = tags.join(",");
        let texts: Vec<_> = values.iter().map(f64::to_string).collect();
        let (first, second) = (format!("|@{rate}"), format!("|#{tags}"));
        let fields = if order { first + &second } else { second + &first };
        let line = format!("{name}:{}|{letter}{fields}", texts.join(":"));
        let Ok(Item::Metric(metric)) = parse_line(line.as_bytes(), &Limits::default()) else {
            return Err(TestCaseError::fail(line));
        };
        prop_assert_eq!(metric.name, name.as_bytes());
        prop_assert_eq!(metric.kind, kind);
        prop_assert_eq!(metric.rate, if kind == Kind::Gauge { 1.0 } else { rate });
        prop_assert_eq!(metric.tags, tags.as_bytes());
        let read: Vec<_> = metric.values.collect();
        let written: Vec<_> = values.into_iter().map(Value::Number).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn any_prometheus_like_text_is_taken_or_refused(text in LIKE_TEXT) {
        if let Ok(families) = prometheus_text::parse(text.as_bytes(), &Limits::default()) {
            for family in families {
                prop_assert!(agent_metric::name::is_metric_clean(family.name.as_bytes()));
            }
        }
    }

    #[test]
    fn any_prometheus_bytes_are_taken_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        if let Err(error) = prometheus_text::parse(&bytes, &Limits::default()) {
            prop_assert!(error.line <= bytes.len() + 1);
        }
    }

    #[test]
    fn every_pushed_sample_is_counted_once(text in LIKE_JSON, form in 0usize..3) {
        let form = [Body::Json, Body::Ndjson, Body::Auto][form];
        let (mut seen, mut calls) = (Vec::new(), 0u64);
        let report = push_json::decode(text.as_bytes(), form, &Limits::default(), |sample| {
            calls += 1;
            seen.push(sample.index);
            // The receiver may refuse too.
            if calls % 2 == 0 { Err(Reject::NameTooLong) } else { Ok(()) }
        });
        prop_assert_eq!(report.accepted, calls.div_ceil(2));
        prop_assert_eq!(report.reasons.iter().map(|(_, count)| count).sum::<u64>(), report.refused);
        prop_assert!(seen.is_sorted());
        prop_assert!(seen.iter().all(|index| (*index as u64) < report.accepted + report.refused));
    }

    /// Slices of any size give the same samples and the same account as the whole at once.
    #[test]
    fn a_body_in_slices_is_the_body(text in LIKE_JSON, form in 0usize..3, most in 1usize..4) {
        let form = [Body::Json, Body::Ndjson, Body::Auto][form];
        let (body, limits) = (text.as_bytes(), Limits::default());
        let mut whole = Vec::new();
        let report = push_json::decode(body, form, &limits, |sample| {
            whole.push((sample.index, sample.line, sample.name.to_owned()));
            Ok(())
        });
        let mut decoder = push_json::Decoder::new(body, form, &limits);
        let mut sliced = Vec::new();
        loop {
            let before = sliced.len();
            let is_done = decoder.run(body, &limits, most, |sample| {
                sliced.push((sample.index, sample.line, sample.name.to_owned()));
                Ok(())
            });
            if is_done {
                break;
            }
            prop_assert!(sliced.len() - before <= most);
        }
        prop_assert_eq!((decoder.finish(), sliced), (report, whole));
    }

    #[test]
    fn any_pushed_bytes_are_counted(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for form in [Body::Json, Body::Ndjson, Body::Auto] {
            let report = push_json::decode(&bytes, form, &Limits::default(), |_| Ok(()));
            prop_assert_eq!(report.refusals.len() as u64, report.refused);
        }
    }

    /// A good array is cut and read as serde_json reads it.
    #[test]
    fn samples_agree_with_a_plain_json_reader(
        samples in proptest::collection::vec(
            (
                "\\PC{1,8}",
                -1e9f64..1e9,
                proptest::collection::btree_map("[a-z]{1,3}", "\\PC{0,5}", 0..3),
            ),
            0..6,
        ),
    ) {
        let array: Vec<_> = samples
            .iter()
            .map(|(name, value, labels)| {
                serde_json::json!({"name": name, "type": "gauge", "value": value, "labels": labels})
            })
            .collect();
        let body = serde_json::to_vec(&array).expect("JSON");
        let mut index = 0;
        let report = push_json::decode(&body, Body::Auto, &Limits::default(), |sample| {
            let (name, value, labels) = &samples[index];
            index += 1;
            assert_eq!(sample.name, name);
            assert_eq!(sample.numbers, [*value]);
            let expected: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let found: Vec<_> = sample.labels.iter().map(|(n, v)| (&**n, &**v)).collect();
            assert_eq!(found, expected);
            Ok(())
        });
        prop_assert_eq!((report.accepted, report.refused), (samples.len() as u64, 0));
    }
}

#[test]
fn a_refusal_of_ndjson_names_its_line_with_the_blank_ones() {
    let body = b"\n\r\n{\"name\":\"a\",\"type\":\"counter\",\"value\":1}\n \n{}\r\n\n[]\n\n";
    let report = push_json::decode(body, Body::Ndjson, &Limits::default(), |sample| {
        assert_eq!((sample.index, sample.line), (0, Some(3)));
        Ok(())
    });
    let places: Vec<_> = report.refusals.iter().map(|one| (one.index, one.line)).collect();
    assert_eq!(places, [(1, Some(5)), (2, Some(7))]);
    let report = push_json::decode(b"[1]", Body::Auto, &Limits::default(), |_| Ok(()));
    assert_eq!(report.refusals[0].line, None);
}

#[test]
fn a_body_over_the_sample_limit_is_taken_up_to_it() {
    let limits = Limits { body_samples_max: 3, refusals_listed_max: 1, ..Limits::default() };
    let body = "{\"name\":\"a\",\"type\":\"counter\",\"value\":1}\n".repeat(5);
    let report = push_json::decode(body.as_bytes(), Body::Ndjson, &limits, |_| Ok(()));
    assert_eq!((report.accepted, report.refused, report.refusals.len()), (3, 2, 1));
    assert_eq!(
        serde_json::to_string(&report).expect("text"),
        "{\"accepted\":3,\"refused\":2,\"reasons\":{\"samples_too_many\":2},\
         \"refusals\":[{\"index\":3,\"line\":4,\"reason\":\"samples_too_many\",\
         \"detail\":\"a body has at most 3 samples\"}]}"
    );
}

#[test]
fn a_deep_or_long_body_neither_overflows_the_stack_nor_panics() {
    let deep = 4 << 20;
    for body in [vec![b'['; deep], vec![b'{'; deep], vec![b'"'; deep], vec![b'\\'; deep]] {
        let report = push_json::decode(&body, Body::Auto, &Limits::default(), |_| Ok(()));
        assert_eq!(report.accepted, 0);
        assert!(report.refused > 0);
    }
    let nested = [b"{\"x\":".repeat(1 << 18), b"1".to_vec(), b"}".repeat(1 << 18)].concat();
    let report = push_json::decode(&nested, Body::Json, &Limits::default(), |_| Ok(()));
    assert_eq!(report.refusals[0].reason, Reject::JsonTooDeep);
}
