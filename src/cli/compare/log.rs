//! All that runs logged, as comma-separated values.

use decorr::train::{Record, Split};

use crate::cli::csv::{or_empty, quoted};

/// A heading, and a line a record; empty where there is no number.
pub(super) fn csv<'a>(runs: impl Iterator<Item = (&'a str, &'a [Record])>) -> String {
    let mut text = String::from("run,split,step,epoch,seconds,loss,top1,top5,lr\n");
    for (name, records) in runs {
        let name = quoted(name);
        for r in records {
            let split = match r.split {
                Split::Train => "train",
                Split::Test => "test",
            };
            let (loss, top1, top5, lr) = (
                or_empty(r.loss),
                or_empty(r.top1),
                or_empty(r.top5),
                or_empty(r.lr),
            );
            let (step, epoch, seconds) = (r.step, r.epoch, r.seconds);
            text += &format!("{name},{split},{step},{epoch},{seconds},{loss},{top1},{top5},{lr}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_a_line() {
        let mut record = Record {
            split: Split::Train,
            step: 3,
            epoch: 0,
            loss: Some(0.25),
            top1: Some(0.5),
            top5: None,
            lr: Some(0.1),
            seconds: 1.5,
        };
        let train = record.clone();
        (record.split, record.loss, record.top5, record.lr) = (Split::Test, None, Some(0.75), None);
        let records = [train, record];
        let runs = [("a", &records[..]), ("b, \"c\"", &records[..1])];
        let wanted = "run,split,step,epoch,seconds,loss,top1,top5,lr\n\
                      a,train,3,0,1.5,0.25,0.5,,0.1\n\
                      a,test,3,0,1.5,,0.5,0.75,\n\
                      \"b, \"\"c\"\"\",train,3,0,1.5,0.25,0.5,,0.1\n";
        assert_eq!(csv(runs.into_iter()), wanted);
    }
}
