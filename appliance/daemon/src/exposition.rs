//! Metrics in Prometheus' text format (version 0.0.4). What there is to tell is declared in `base::metrics`; here it is only
//! put into the shape that the encoder takes.

use base::metrics::{Family, Kind, Metrics, ReactorTimes, Value};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All samples as text.
pub fn text(metrics: &Metrics, reactors: &[ReactorTimes]) -> Result<String, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&families(metrics, reactors), &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

fn families(metrics: &Metrics, reactors: &[ReactorTimes]) -> Vec<MetricFamily> {
    let mut families: Vec<(&'static Family, Vec<Metric>)> = Vec::new();
    metrics.samples(reactors, |family, labels, value| {
        let sample = sample(family, labels, value);
        match families.last_mut() {
            Some((last, samples)) if last.name == family.name => samples.push(sample),
            _ => families.push((family, vec![sample])),
        }
    });
    families.into_iter().map(|(family, samples)| shaped(family, samples)).collect()
}

fn shaped(family: &Family, samples: Vec<Metric>) -> MetricFamily {
    let mut shaped = MetricFamily::default();
    shaped.set_name(family.name.to_owned());
    shaped.set_help(family.help.to_owned());
    shaped.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    shaped.set_metric(samples);
    shaped
}

fn sample(family: &Family, labels: &[&str], value: Value) -> Metric {
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = Metric::from_label(family.labels.iter().zip(labels).map(pair).collect());
    match value {
        Value::Number(number) if family.kind == Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
        Value::Histogram(value) => {
            let bucket = |(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            };
            let mut histogram = Histogram::default();
            histogram.set_bucket(value.buckets.into_iter().map(bucket).collect());
            histogram.set_sample_sum(value.sum);
            histogram.set_sample_count(value.count);
            metric.set_histogram(histogram);
        }
    }
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::metrics::{FAMILIES, Names, VolumeName, VolumeOp};
    use base::time::Span;

    fn example() -> Metrics {
        let names = Names {
            version: "1.2.3".into(),
            volumes: vec![VolumeName { array: "a0".into(), volume: "v0".into() }],
            devices: vec!["d0".into()],
            arrays: vec!["a0".into()],
        };
        Metrics::new(names, 2)
    }

    #[test]
    fn every_family_is_there_from_the_start_with_help_and_type() {
        let text = text(&example(), &[]).unwrap();
        for family in FAMILIES {
            let kind = format!("{:?}", family.kind).to_lowercase();
            let head =
                format!("# HELP {} {}\n# TYPE {} {kind}\n{}", family.name, family.help, family.name, family.name);
            assert!(text.contains(&head), "{head} is missing:\n{text}");
            assert_eq!(text.matches(&format!("# TYPE {} ", family.name)).count(), 1, "{} comes once", family.name);
        }
    }

    #[test]
    fn a_histogram_is_written_with_bounds_as_people_write_them() {
        let metrics = example();
        metrics.shards()[1].volumes[0].record(VolumeOp::Write, 4096, Span::from_micros(50), true);
        let text = text(&metrics, &[]).unwrap();
        let name = "brindle_volume_request_duration_seconds";
        let labels = "array=\"a0\",volume=\"v0\",op=\"write\"";
        for line in [
            format!("{name}_bucket{{{labels},le=\"0.000001\"}} 0\n"),
            format!("{name}_bucket{{{labels},le=\"0.000032\"}} 0\n"),
            format!("{name}_bucket{{{labels},le=\"0.000064\"}} 1\n"),
            format!("{name}_bucket{{{labels},le=\"+Inf\"}} 1\n"),
            format!("{name}_sum{{{labels}}} 0.00005\n"),
            format!("{name}_count{{{labels}}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line} is missing:\n{text}");
        }
    }

    #[test]
    fn an_appliance_without_volumes_has_no_empty_family() {
        let text = text(&Metrics::new(Names::default(), 1), &[]).unwrap();
        assert!(!text.contains("brindle_volume") && text.contains("brindle_connections{reactor=\"0\"} 0\n"), "{text}");
    }
}
