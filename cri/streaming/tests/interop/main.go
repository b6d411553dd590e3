// Command interop is a client of the streaming server made of client-go, the code that the
// kubelet's callers and crictl use.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

var (
	target    = flag.String("url", "", "the streaming URL")
	transport = flag.String("transport", "spdy", "spdy or websocket")
	protocols = flag.String("protocols", "", "comma-separated protocols instead of the usual")
	tty       = flag.Bool("tty", false, "ask for a terminal")
	stdin     = flag.Bool("stdin", false, "send standard input")
	noStderr  = flag.Bool("no-stderr", false, "take no standard error")
	send      = flag.Int64("send", 0, "send so many random bytes and expect them back")
	sizes     = flag.String("sizes", "", "terminal sizes as WxH, comma-separated")
	port      = flag.Int("port", 0, "the port to forward to")
	conns     = flag.Int("connections", 1, "forwarded connections at once")
	authority = flag.String("ca", "", "a file of authorities to trust instead of the system's")
	refused   = flag.Bool("refused", false, "expect the forwarded port to be closed")
)

func main() {
	flag.Parse()
	var err error
	if *port != 0 {
		err = forward()
	} else {
		err = remote()
	}
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		os.Exit(exit.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(125)
	}
}

func clientConfig() *restclient.Config {
	return &restclient.Config{TLSClientConfig: restclient.TLSClientConfig{CAFile: *authority}}
}

func executor() (remotecommand.Executor, error) {
	config := clientConfig()
	var chosen []string
	if *protocols != "" {
		chosen = strings.Split(*protocols, ",")
	}
	if *transport == "websocket" {
		if chosen == nil {
			return remotecommand.NewWebSocketExecutor(config, "GET", *target)
		}
		return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", *target, chosen...)
	}
	parsed, err := url.Parse(*target)
	if err != nil {
		return nil, err
	}
	if chosen == nil {
		return remotecommand.NewSPDYExecutor(config, "POST", parsed)
	}
	wrapper, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(wrapper, upgrader, "POST", parsed, chosen...)
}

func remote() error {
	executor, err := executor()
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Stderr: os.Stderr, Tty: *tty}
	if *noStderr {
		options.Stderr = nil
	}
	if *stdin {
		options.Stdin = os.Stdin
	}
	if *sizes != "" {
		options.TerminalSizeQueue = newQueue(*sizes)
	}
	sent, received := sha256.New(), sha256.New()
	if *send > 0 {
		source := io.LimitReader(rand.New(rand.NewSource(1)), *send)
		options.Stdin = io.TeeReader(source, sent)
		options.Stdout = received
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := executor.StreamWithContext(ctx, options); err != nil {
		return err
	}
	if *send > 0 && !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// queue gives terminal sizes, a little apart, and then waits.
type queue struct{ left []remotecommand.TerminalSize }

func newQueue(text string) *queue {
	q := &queue{}
	for _, size := range strings.Split(text, ",") {
		var s remotecommand.TerminalSize
		fmt.Sscanf(size, "%dx%d", &s.Width, &s.Height)
		q.left = append(q.left, s)
	}
	return q
}

func (q *queue) Next() *remotecommand.TerminalSize {
	if len(q.left) == 0 {
		select {}
	}
	time.Sleep(300 * time.Millisecond)
	next := q.left[0]
	q.left = q.left[1:]
	return &next
}

func dialer() (httpstream.Dialer, error) {
	config := clientConfig()
	parsed, err := url.Parse(*target)
	if err != nil {
		return nil, err
	}
	if *transport == "websocket" {
		return portforward.NewSPDYOverWebsocketDialer(parsed, config)
	}
	wrapper, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: wrapper}, "POST", parsed), nil
}

func forward() error {
	dialer, err := dialer()
	if err != nil {
		return err
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	ports := []string{fmt.Sprintf("0:%d", *port)}
	forwarder, err := portforward.NewOnAddresses(
		dialer, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	}
	local, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", local[0].Local)
	failures := make(chan error, *conns)
	var group sync.WaitGroup
	for i := range *conns {
		group.Go(func() { failures <- exchange(address, int64(i)) })
	}
	group.Wait()
	close(failures)
	for failure := range failures {
		if failure != nil {
			return failure
		}
	}
	if !*refused {
		close(stop)
	}
	return <-ended
}

// exchange sends bytes through a forwarded connection, ends its way, and expects them back.
func exchange(address string, seed int64) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent, received := sha256.New(), sha256.New()
	writing := make(chan error, 1)
	go func() {
		source := io.LimitReader(rand.New(rand.NewSource(seed)), *send)
		_, err := io.Copy(conn, io.TeeReader(source, sent))
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		writing <- err
	}()
	_, err = io.Copy(received, conn)
	if *refused {
		return nil
	}
	if err := errors.Join(err, <-writing); err != nil {
		return err
	}
	if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		return fmt.Errorf("connection %d: what came back is not what was sent", seed)
	}
	return nil
}
