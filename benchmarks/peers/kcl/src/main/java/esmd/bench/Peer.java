package esmd.bench;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * The Kinesis Client Library as its guide shows it: a record processor for each shard that makes Lambda's event of each
 * batch, posts it and checkpoints after what it was given. README.md says what differs from its defaults.
 */
public final class Peer {
    private static final int OK = 200;
    private static final long SYNC_MS = 1_000; // for which the first worker sleeps before it reads; KCL's is a minute

    private Peer() {
    }

    /** What all shards' processors share. */
    private record Delivery(HttpClient http, ObjectMapper json, URI url, String arn, int batch, String keep) {
        void deliver(String shard, List<KinesisClientRecord> records) {
            ArrayNode shown = json.createArrayNode();
            for (KinesisClientRecord record : records) {
                byte[] data = new byte[record.data().remaining()];
                record.data().get(data);
                if (keep != null && !kept(data)) {
                    continue;
                }
                shown.add(shown(shard, record, data));
                if (shown.size() == batch) {
                    post(shown);
                    shown = json.createArrayNode();
                }
            }
            if (!shown.isEmpty()) {
                post(shown);
            }
        }

        private boolean kept(byte[] data) {
            try {
                return keep.equals(json.readTree(data).path("type").textValue());
            } catch (IOException exc) {
                throw new IllegalStateException(exc);
            }
        }

        private ObjectNode shown(String shard, KinesisClientRecord record, byte[] data) {
            String[] parts = arn.split(":", 6);
            ObjectNode made = json.createObjectNode();
            made.putObject("kinesis")
                .put("kinesisSchemaVersion", "1.0")
                .put("partitionKey", record.partitionKey())
                .put("sequenceNumber", record.sequenceNumber())
                .put("data", data)
                .put("approximateArrivalTimestamp", record.approximateArrivalTimestamp().toEpochMilli() / 1000.0);
            return made
                .put("eventSource", "aws:kinesis")
                .put("eventVersion", "1.0")
                .put("eventID", shard + ":" + record.sequenceNumber())
                .put("eventName", "aws:kinesis:record")
                .put("invokeIdentityArn", "arn:aws:iam::" + parts[4] + ":role/kcl")
                .put("awsRegion", parts[3])
                .put("eventSourceARN", arn);
        }

        private void post(ArrayNode shown) {
            ObjectNode event = json.createObjectNode();
            event.set("Records", shown);
            try {
                HttpRequest request = HttpRequest.newBuilder(url)
                    .header("Content-Type", "application/json")
                    .POST(HttpRequest.BodyPublishers.ofByteArray(json.writeValueAsBytes(event)))
                    .build();
                int status = http.send(request, HttpResponse.BodyHandlers.ofByteArray()).statusCode();
                if (status != OK) {
                    throw new IllegalStateException("the function answered " + status);
                }
            } catch (JsonProcessingException exc) {
                throw new IllegalStateException(exc);
            } catch (IOException exc) {
                throw new IllegalStateException(exc);
            } catch (InterruptedException exc) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException(exc);
            }
        }
    }

    /** One shard. */
    private static final class Processor implements ShardRecordProcessor {
        private final Delivery delivery;
        private String shard = "";

        Processor(Delivery delivery) {
            this.delivery = delivery;
        }

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            delivery.deliver(shard, input.records());
            checkpoint(input.checkpointer());
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            // Somebody else has it, and the last checkpoint.
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            checkpoint(input.checkpointer());
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            checkpoint(input.checkpointer());
        }

        private static void checkpoint(RecordProcessorCheckpointer checkpointer) {
            try {
                checkpointer.checkpoint();
            } catch (InvalidStateException | ShutdownException exc) {
                throw new IllegalStateException(exc);
            }
        }
    }

    /** Run as a program: {@code --endpoint URL --dynamodb URL --stream ARN --url URL --batch 100 [--keep click]}. */
    public static void main(String[] arguments) {
        Map<String, String> given = new HashMap<>();
        for (int at = 0; at < arguments.length; at += 2) {
            given.put(arguments[at], arguments[at + 1]);
        }
        String arn = given.get("--stream");
        String stream = arn.substring(arn.indexOf('/') + 1);
        Region region = Region.of(arn.split(":")[3]);
        URI dynamo = URI.create(given.get("--dynamodb"));
        // What KinesisClientUtil makes, but for HTTP/2, which needs TLS.
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
            .endpointOverride(URI.create(given.get("--endpoint")))
            .region(region)
            .httpClientBuilder(NettyNioAsyncHttpClient.builder().maxConcurrency(Integer.MAX_VALUE).protocol(Protocol.HTTP1_1))
            .build();
        DynamoDbAsyncClient leases = DynamoDbAsyncClient.builder().endpointOverride(dynamo).region(region).build();
        CloudWatchAsyncClient metrics = CloudWatchAsyncClient.builder().endpointOverride(dynamo).region(region).build();
        Delivery delivery = new Delivery(
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build(),
            new ObjectMapper(),
            URI.create(given.get("--url")),
            arn,
            Integer.parseInt(given.get("--batch")),
            given.get("--keep"));
        ConfigsBuilder configs = new ConfigsBuilder(
            new SingleStreamTracker(
                StreamIdentifier.singleStreamInstance(stream),
                InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON)),
            "peer-" + UUID.randomUUID(),
            kinesis,
            leases,
            metrics,
            UUID.randomUUID().toString(),
            () -> new Processor(delivery));
        Scheduler scheduler = new Scheduler(
            configs.checkpointConfig(),
            configs.coordinatorConfig(),
            configs.leaseManagementConfig().shardSyncIntervalMillis(SYNC_MS),
            configs.lifecycleConfig(),
            configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
            configs.processorConfig(),
            configs.retrievalConfig().retrievalSpecificConfig(new PollingConfig(stream, kinesis)));
        Runtime.getRuntime().addShutdownHook(new Thread(scheduler::startGracefulShutdown));
        System.out.println("ready");
        scheduler.run();
    }
}
