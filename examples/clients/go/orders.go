// A worker over `walsvc serve --data data --unix data.sock --redis 127.0.0.1:6380`, with go-redis: go run . [PORT]
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/redis/go-redis/v9"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	port := "6380"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port})
	defer client.Close()
	for _, item := range []string{"book", "lamp", "chair"} {
		added := client.XAdd(ctx, &redis.XAddArgs{Stream: "orders", Values: []string{"item", item}})
		check(added.Err()) // on stable storage when it returns
	}
	err := client.XGroupCreate(ctx, "orders", "workers", "0").Err()
	if !redis.HasErrorPrefix(err, "BUSYGROUP") { // it is there since an earlier run
		check(err)
	}
	for {
		read, err := client.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: "workers", Consumer: "worker-1", Streams: []string{"orders", ">"}, Count: 2, Block: -1,
		}).Result()
		if err == redis.Nil {
			break
		}
		check(err)
		for _, entry := range read[0].Messages {
			fmt.Println("done", entry.Values["item"])
			check(client.XAck(ctx, "orders", "workers", entry.ID).Err())
		}
	}
	pending, err := client.XPending(ctx, "orders", "workers").Result()
	check(err)
	fmt.Println("pending", pending.Count)
}
