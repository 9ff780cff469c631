//! The Pushgateway's rules, on real files.

use super::*;
use crate::http::conn_test::temporary_folder;
use agent_metric::FamilyKind;
use agent_wire::prometheus_text::SeriesValue;

fn key(path: &str) -> GroupKey {
    GroupKey::from_path(path, &Limits::default()).expect("a grouping key")
}

fn put(gateway: &Gateway, path: &str, replace: bool, body: &str) -> Result<(), PutError> {
    gateway.put(&key(path), replace, body.as_bytes(), &Limits::default(), Vec::new())
}

fn reason(result: Result<(), PutError>) -> &'static str {
    result.expect_err("refused").reason()
}

/// Names of the families of the only group, without its times.
fn names(gateway: &Gateway) -> Vec<String> {
    let (groups, bad) = gateway.groups();
    assert_eq!((groups.len(), bad), (1, 0));
    let own = |name: &&Family| name.name != PUSH_TIME && name.name != FAILURE_TIME;
    groups[0].families.iter().filter(own).map(|family| family.name.clone()).collect()
}

#[test]
fn put_replaces_the_group_and_post_only_its_families() {
    let folder = temporary_folder("gateway");
    let gateway = Gateway::new(&folder);
    put(&gateway, "job/a", true, "x 1\ny 2\n").expect("taken");
    put(&gateway, "job/a", false, "y 3\nz 4\n").expect("taken");
    assert_eq!(names(&gateway), ["x", "y", "z"]);
    put(&gateway, "job/a", true, "z 5\n").expect("taken");
    assert_eq!(names(&gateway), ["z"]);
    put(&gateway, "job/a", true, "").expect("an empty PUT clears");
    assert_eq!(names(&gateway), [""; 0]);
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn every_type_comes_back_as_it_was_pushed_also_to_another_worker() {
    let folder = temporary_folder("gateway");
    let body = "# HELP c A \\\\ and\\na line.\n# TYPE c_total counter\nc_total 3\n\
        # TYPE bare counter\nbare 1.5\n# TYPE g gauge\ng NaN\nu -Inf\n\
        # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 9\nh_count 3\n\
        # TYPE s summary\ns{quantile=\"0.5\"} 2\ns_sum 4\ns_count 2\n";
    put(&Gateway::new(&folder), "job/a/path@base64/Ly9cIg", true, body).expect("taken");
    let other = Gateway::new(&folder);
    let (groups, _) = other.groups();
    let find = |name: &str| {
        let found = groups[0].families.iter().find(|family| family.name == name);
        found.unwrap_or_else(|| panic!("{name} is missing"))
    };
    assert_eq!(find("c_total").kind, FamilyKind::Counter);
    assert_eq!(find("bare").series[0].value, SeriesValue::Number(1.5));
    assert_eq!(find("u").kind, FamilyKind::Unknown);
    let labels = "instance=\"\",job=\"a\",path=\"//\\\\\\\"\"";
    assert_eq!(find("u").series[0].labels, labels);
    assert_eq!(find("u").series[0].value, SeriesValue::Number(f64::NEG_INFINITY));
    let buckets = vec![(1.0, 1), (f64::INFINITY, 2)];
    assert_eq!(find("h").series[0].value, SeriesValue::Histogram { buckets, sum: 9.0 });
    let quantiles = vec![(0.5, 2.0)];
    assert_eq!(find("s").series[0].value, SeriesValue::Summary { quantiles, sum: 4.0, count: 2 });
    assert!(matches!(find("g").series[0].value, SeriesValue::Number(value) if value.is_nan()));
    // Once more through the file: POST reads and writes what is there.
    put(&other, "job/a/path@base64/Ly9cIg", false, "new 1\n").expect("taken");
    let (again, _) = Gateway::new(&folder).groups();
    let kept = |name: &str| again[0].families.iter().find(|f| f.name == name).cloned();
    assert_eq!(kept("h"), Some(find("h").clone()));
    assert_eq!(kept("c_total"), Some(find("c_total").clone()));
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn labels_of_the_path_win_and_instance_is_always_there() {
    let folder = temporary_folder("gateway");
    let gateway = Gateway::new(&folder);
    put(&gateway, "job/a", true, "x{job=\"b\",z=\"1\"} 1\n").expect("taken");
    let (groups, _) = gateway.groups();
    assert_eq!(groups[0].families[0].series[0].labels, "instance=\"\",job=\"a\",z=\"1\"");
    let twice = "x{job=\"b\"} 1\nx{job=\"c\"} 2\n";
    assert_eq!(reason(put(&gateway, "job/a", true, twice)), "series_repeated");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn bad_pushes_are_refused_whole_and_noted_in_the_group() {
    let folder = temporary_folder("gateway");
    let gateway = Gateway::new(&folder);
    put(&gateway, "job/a", true, "# TYPE x counter\nx 1\n").expect("taken");
    let cases = [
        ("y{ 1\n", "labels_malformed"),
        ("y 1 1700000000000\n", "timestamp_refused"),
        ("push_time_seconds 1\n", "name_reserved"),
    ];
    for (body, expected) in cases {
        assert_eq!(reason(put(&gateway, "job/a", false, body)), expected, "{body}");
    }
    let other_type = "# TYPE x gauge\nx 1\n";
    assert_eq!(reason(put(&gateway, "job/b", true, other_type)), "type_conflict");
    let (groups, _) = gateway.groups();
    assert_eq!(groups.len(), 2, "the refused group exists, for its failure time");
    assert!(groups[0].failed_s >= groups[0].pushed_s && groups[0].pushed_s > 0.0);
    assert_eq!(groups[0].families[0].name, "x");
    assert!(groups[1].pushed_s == 0.0 && groups[1].failed_s > 0.0);
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn the_time_at_which_a_series_began_is_folded_into_it() {
    let folder = temporary_folder("gateway");
    let body = "# TYPE c_total counter\nc_total{a=\"1\"} 3\nc_total{a=\"2\"} 4\n\
        # TYPE c_created gauge\nc_created{a=\"1\"} 1.7e+09\nc_created{a=\"2\"} NaN\n\
        # TYPE h_created gauge\nh_created 1.70000000025e+09\n\
        # TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n\
        # TYPE alone_created gauge\nalone_created 5\n";
    let gateway = Gateway::new(&folder);
    put(&gateway, "job/a", true, body).expect("taken");
    assert_eq!(names(&gateway), ["c_total", "h", "alone_created"]);
    let created = |gateway: &Gateway| {
        let (groups, _) = gateway.groups();
        let series = groups[0].families.iter().take(2).flat_map(|family| &family.series);
        series.map(|series| series.created_unix_ms).collect::<Vec<_>>()
    };
    let expected = [Some(1_700_000_000_000), None, Some(1_700_000_000_250)];
    assert_eq!(created(&gateway), expected);
    // Through the file, and by a push of the time alone.
    put(&Gateway::new(&folder), "job/a", false, "c_created{a=\"2\"} 7\n").expect("taken");
    let expected = [Some(1_700_000_000_000), Some(7000), Some(1_700_000_000_250)];
    assert_eq!(created(&gateway), expected);
    assert_eq!(reason(put(&gateway, "job/b", true, "h_created 1\n")), "type_conflict");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_series_is_in_one_group_only() {
    let folder = temporary_folder("gateway");
    let gateway = Gateway::new(&folder);
    put(&gateway, "job/a/tag/1", true, "x 1\n").expect("taken");
    put(&gateway, "job/a", true, "x{tag=\"2\"} 1\n").expect("another series");
    let error = put(&gateway, "job/a", true, "x{tag=\"1\"} 1\n").expect_err("refused");
    assert_eq!(error.reason(), "series_repeated");
    let PutError::Bad { text, .. } = error else { panic!("a reason in words") };
    assert!(text.contains("group {job=\"a\",tag=\"1\"} has the series x{"), "{text}");
    // A label without a value is none.
    assert_eq!(reason(put(&gateway, "job/a/tag/1/y@base64/=", true, "x 1\n")), "series_repeated");
    put(&gateway, "job/a", false, "x{tag=\"3\"} 1\n").expect("a push over its own series");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_family_is_as_old_as_the_first_push_with_its_type() {
    let folder = temporary_folder("gateway");
    let first = || {
        // Through the file, as another worker sees it.
        let (groups, _) = Gateway::new(&folder).groups();
        let family = groups[0].families.iter().find(|family| family.name == "x");
        (groups[0].created_unix_ms, family.expect("pushed").first_unix_ms)
    };
    let wait = || {
        let before = now_s();
        while now_s() <= before {
            std::hint::spin_loop();
        }
    };
    put(&Gateway::new(&folder), "job/a", true, "y 1\n").expect("taken");
    wait();
    put(&Gateway::new(&folder), "job/a", false, "x 1\n").expect("taken");
    let (made, began) = first();
    assert!(began > made);
    wait();
    put(&Gateway::new(&folder), "job/a", true, "x 2\n").expect("taken");
    assert_eq!(first(), (made, began), "another value");
    put(&Gateway::new(&folder), "job/a", true, "# TYPE x gauge\nx 2\n").expect("taken");
    assert!(first().1 > began, "another type");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_push_is_refused_for_names_that_somebody_had_before_it() {
    let folder = temporary_folder("gateway");
    let gateway = Gateway::new(&folder);
    let push = |first_unix_ms, body: &str| {
        let claim = crate::scrape::Claim {
            name: "x".to_owned(),
            kind: agent_metric::FamilyKind::Counter,
            owner: crate::scrape::Owner::App("shop"),
        };
        let sources = vec![Candidate { claim, first_unix_ms, is_shared: false }];
        gateway.put(&key("job/a"), true, body.as_bytes(), &Limits::default(), sources)
    };
    assert_eq!(reason(push(1, "# TYPE x gauge\nx 1\n")), "type_conflict");
    push(u64::MAX, "# TYPE x gauge\nx 1\n").expect("it was there first");
    let (groups, _) = gateway.groups();
    let began = groups[0].families[0].first_unix_ms;
    push(began + 1, "# TYPE x gauge\nx 2\n").expect("and stays");
    assert_eq!(reason(push(began - 1, "# TYPE x gauge\nx 3\n")), "type_conflict");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn damaged_files_cost_themselves_only() {
    let folder = temporary_folder("gateway");
    let gateway = Gateway::new(&folder);
    put(&gateway, "job/a", true, "x 1\n").expect("taken");
    let inside = folder.join("gateway.v1");
    fs::write(inside.join("0.group"), b"agent-gateway 2\nkey job=\"z\"\n").expect("write");
    fs::write(inside.join("1.group"), b"\xff\xfe").expect("write");
    std::os::unix::fs::symlink("/etc/passwd", inside.join("2.group")).expect("link");
    let whole = fs::read(inside.join(gateway_file::name_of(&key("job/a")))).expect("read");
    fs::write(inside.join("3.group"), &whole[..30]).expect("write");
    let (groups, bad) = gateway.groups();
    assert_eq!((groups.len(), bad), (1, 3));
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn groups_and_bytes_are_bounded() {
    let folder = temporary_folder("gateway");
    let gateway = Gateway::new(&folder);
    put(&gateway, "job/a", true, "x 1\n").expect("taken");
    let inside = folder.join("gateway.v1");
    let large = File::create(inside.join("large.group")).expect("create");
    large.set_len(BYTES_MAX).expect("a sparse file");
    assert_eq!(reason(put(&gateway, "job/a", true, "x 2\n")), "gateway_full");
    fs::remove_file(inside.join("large.group")).expect("remove");
    let whole = fs::read(inside.join(gateway_file::name_of(&key("job/a")))).expect("read");
    for n in 1..GROUPS_MAX {
        fs::write(inside.join(format!("{n}.group")), &whole).expect("write");
    }
    assert_eq!(reason(put(&gateway, "job/new", true, "x 1\n")), "gateway_full");
    put(&gateway, "job/a", true, "x 3\n").expect("a group that exists can change");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn writers_of_several_workers_take_turns() {
    let folder = temporary_folder("gateway");
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let gateway = Gateway::new(&folder);
            std::thread::spawn(move || {
                for n in 0..25 {
                    put(&gateway, "job/a", false, &format!("m{writer}_{n} 1\n")).expect("taken");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("writer");
    }
    assert_eq!(names(&Gateway::new(&folder)).len(), 100);
    fs::remove_dir_all(folder).expect("clean up");
}
