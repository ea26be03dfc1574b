// A Lambda function for Node.js, as it would run in AWS: takes the events of every source, and of a schedule.
export const handler = async (event, context) => {
  const records = event.Records ?? Object.values(event.records ?? {}).flat();
  const what = event.source === "aws.events" ? `it is ${event.time}` : `${records.length} records`;
  console.log(`${what}, ${context.getRemainingTimeInMillis()} ms left`);
  return { batchItemFailures: [] };
};
