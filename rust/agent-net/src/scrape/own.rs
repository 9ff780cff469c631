//! The page that an app makes of itself: its segment, those beside it, and the quantiles of its summaries.
//!
//! A quantile is exact over what the segment still has of a summary's values of the last 60 seconds (nearest rank); a
//! summary without a value in that time has none. The cells of all processes, the dead included, are read from the segment.

use agent_metric::quantiles::nearest_rank;
use agent_shm::{now_unix_ms, OwnedShape, RecentReader, Segment, SeriesId};
use agent_wire::Format;

use super::{render, Source};

const WINDOW_MS: u64 = 60_000;

/// The page of one segment, in full.
pub fn render_own(segment: &Segment, format: Format) -> Vec<u8> {
    let segment = &segment.with_those_beside();
    let oldest = now_unix_ms().saturating_sub(WINDOW_MS);
    let quantiles =
        |id: SeriesId, out: &mut Vec<(f64, f64)>| quantiles_of(segment, id, oldest, out);
    let source = Source { quantiles: Some(&quantiles), ..Source::own(segment) };
    let mut page = Vec::new();
    render(&[source], format, &mut page);
    page
}

/// The quantiles of a summary over its values since `oldest`.
fn quantiles_of(segment: &Segment, id: SeriesId, oldest: u64, out: &mut Vec<(f64, f64)>) {
    let Some((meta, _)) = segment.describe(id) else { return };
    let OwnedShape::Summary(wanted) = meta.shape else { return };
    let mut values = Vec::new();
    segment.recent(id, &mut RecentReader::from_oldest(), |unix_ms, value| {
        if unix_ms >= oldest {
            values.push(value);
        }
    });
    values.sort_unstable_by(f64::total_cmp);
    out.extend(wanted.iter().filter_map(|&q| Some((q, nearest_rank(&values, q)?))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_shm::{MetricSpec, Options, Outcome, Shape};

    #[test]
    fn a_summary_has_the_quantiles_of_the_values_in_its_window() {
        let segment = Segment::private("shop", &Options::default());
        let writer = segment.writer().unwrap();
        let shape = Shape::Summary(&[0.5, 1.0]);
        let spec = MetricSpec { name: "s", help: "", unit: "", shape };
        let metric = writer.metric(&spec).unwrap();
        let series = writer.series(metric, "k=\"v\"").unwrap();
        for value in 1..=100 {
            assert_eq!(writer.observe(&series, f64::from(value), 1), Outcome::Applied);
        }
        let page = String::from_utf8(render_own(&segment, Format::Text004)).unwrap();
        assert!(page.contains("s{k=\"v\",quantile=\"0.5\"} 50\n"), "{page}");
        assert!(page.contains("s{k=\"v\",quantile=\"1.0\"} 100\n"), "{page}");
        assert!(page.contains("s_count{k=\"v\"} 100\n"), "{page}");
        let mut found = Vec::new();
        quantiles_of(&segment, series.id(), now_unix_ms() + 1, &mut found);
        assert_eq!(found, []);
    }
}
