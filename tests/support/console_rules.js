// What the console's pure modules make of a few numbers.
(async () => {
  const { Courses, quantile } = await import("/console/course.js");
  const { span, short, rate } = await import("/console/format.js");
  const { Events } = await import("/console/feed.js");
  const { niceTop } = await import("/console/plots.js");
  const courses = new Courses();
  const take = (s, delivered) => courses.take({ at_ms: s * 1000, work: {}, status: { mappings: [
    { uuid: "u", name: "n", last_processing_result: "PROBLEM: no", shards: [{ lag_records: null, lag_s: 2 }], ledger: { polled: 0, delivered, filtered: 0, destination: 0, dropped: 0 } }] } });
  take(0, 0); take(1, 10); take(2, 20); take(1.5, 999);
  const rising = courses.rates("u").delivered;
  take(3, 0);
  const lasting = [courses.lasting("u", "problem")];
  take(6, 0);
  lasting.push(courses.lasting("u", "problem"), courses.lasting("u", "unowned"));
  const told = [];
  const events = new Events((kind, data) => told.push([kind, data]));
  for (const piece of ["event: vi", 'ew\ndata: {"a"', ":1}\n", '\nevent: bye\ndata: {}\n\n']) events.push(piece);
  return {
    rising, lasting, back: courses.rates("u").delivered, samples: courses.samples.get("u").length, lag: courses.points("u", "lag").at(-1).value,
    half: quantile([0, 10, 10], [1, 2], 0.25), beyond: quantile([0, 0, 3], [1, 2], 0.5), none: quantile([0, 0], [1], 0.5),
    spans: [0, 0.004, 0.25, 12, 59.96, 75, 7200, 90061].map(span), shorts: [9999, 12345, 3400000].map(short), rates: [0, 0.25, 12.4].map(rate),
    tops: [0, 7, 120, 0.03].map(niceTop), told,
  };
})()
