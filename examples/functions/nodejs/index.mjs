// A Lambda function for Node.js, as it would run in AWS.
export const handler = async (event, context) => {
  const records = Object.values(event.records ?? {}).flat();
  console.log(`${records.length} records, ${context.getRemainingTimeInMillis()} ms left`);
  return { batchItemFailures: [] };
};
