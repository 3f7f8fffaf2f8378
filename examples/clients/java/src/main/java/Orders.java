// A worker over `walsvc serve --data data --unix data.sock --redis 127.0.0.1:6380`, with Jedis:
// mvn -q compile exec:java [-Dexec.args=PORT]
import java.util.List;
import java.util.Map;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.XReadGroupParams;
import redis.clients.jedis.resps.StreamEntry;

public class Orders {
    public static void main(String[] args) {
        int port = args.length > 0 ? Integer.parseInt(args[0]) : 6380;
        try (JedisPooled log = new JedisPooled("127.0.0.1", port)) {
            for (String item : List.of("book", "lamp", "chair")) {
                log.xadd("orders", StreamEntryID.NEW_ENTRY, Map.of("item", item)); // on stable storage when it returns
            }
            try {
                log.xgroupCreate("orders", "workers", new StreamEntryID("0-0"), false);
            } catch (JedisDataException error) {
                if (!error.getMessage().startsWith("BUSYGROUP")) { // it is there since an earlier run
                    throw error;
                }
            }
            for (;;) {
                var read = log.xreadGroup("workers", "worker-1", new XReadGroupParams().count(2),
                        Map.of("orders", StreamEntryID.UNRECEIVED_ENTRY));
                if (read == null) {
                    break;
                }
                for (StreamEntry entry : read.get(0).getValue()) {
                    System.out.println("done " + entry.getFields().get("item"));
                    log.xack("orders", "workers", entry.getID());
                }
            }
            System.out.println("pending " + log.xpending("orders", "workers").getTotal());
        }
    }
}
