import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketException;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousCloseException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** A Selector's echo server, blocking clients, and closes from another thread. */
public class Echo {
    /** Where the server is. */
    static final String HOST = System.getenv("SERVER_HOST");

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[1]);
        switch (arguments[0]) {
            case "server" -> serve(port);
            case "clients" -> clients(port, 20);
            case "close" -> closes(port);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    static void serve(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(HOST, port), 128);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            var keys = selector.selectedKeys().iterator();
            while (keys.hasNext()) {
                SelectionKey key = keys.next();
                keys.remove();
                if (key.isAcceptable()) {
                    SocketChannel channel = listener.accept();
                    if (channel != null) {
                        channel.configureBlocking(false);
                        channel.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(65536));
                    }
                } else {
                    echo(key);
                }
            }
        }
    }

    /** Reads while the buffer has room, writes while it holds something. */
    static void echo(SelectionKey key) throws IOException {
        SocketChannel channel = (SocketChannel) key.channel();
        ByteBuffer buffer = (ByteBuffer) key.attachment();
        try {
            if (key.isReadable() && channel.read(buffer) < 0 && buffer.position() == 0) {
                channel.close();
                return;
            }
            buffer.flip();
            channel.write(buffer);
            buffer.compact();
            int wanted = (buffer.hasRemaining() ? SelectionKey.OP_READ : 0) | (buffer.position() > 0 ? SelectionKey.OP_WRITE : 0);
            key.interestOps(wanted);
        } catch (IOException gone) {
            channel.close();
        }
    }

    static void clients(int port, int count) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(count);
        List<Future<Void>> results = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            int seed = number;
            results.add(threads.submit((Callable<Void>) () -> {
                talk(port, seed);
                return null;
            }));
        }
        for (Future<Void> result : results) {
            result.get(50, TimeUnit.SECONDS);
        }
        threads.shutdown();
        System.out.println("done");
    }

    static void talk(int port, int seed) throws IOException {
        Random chance = new Random(seed);
        int[] sizes = {1, 10, 1000, 4096, 50_000};
        try (Socket socket = new Socket(HOST, port)) {
            socket.setTcpNoDelay(true);
            socket.setSoTimeout(30_000);
            DataInputStream in = new DataInputStream(socket.getInputStream());
            for (int turn = 0; turn < 50; turn++) {
                byte[] data = new byte[sizes[chance.nextInt(sizes.length)]];
                chance.nextBytes(data);
                socket.getOutputStream().write(data);
                byte[] found = new byte[data.length];
                in.readFully(found);
                if (!Arrays.equals(found, data)) {
                    throw new IOException("client " + seed + ", turn " + turn + ": other bytes came back");
                }
            }
        }
    }

    /** A thread that reads, and one that closes what it reads from: the reader gets the exception that Java promises. */
    static void closes(int port) throws Exception {
        for (int round = 0; round < 10; round++) {
            Socket socket = new Socket(HOST, port);
            warm(socket);
            expect(SocketException.class, () -> socket.getInputStream().read(), socket::close);

            SocketChannel channel = SocketChannel.open(new InetSocketAddress(HOST, port));
            warm(channel.socket());
            expect(AsynchronousCloseException.class, () -> channel.read(ByteBuffer.allocate(1)), channel::close);
        }
        System.out.println("done");
    }

    /** Enough messages that the connection is carried by accel if it ever is. */
    static void warm(Socket socket) throws IOException {
        for (int turn = 0; turn < 20; turn++) {
            socket.getOutputStream().write(turn);
            if (socket.getInputStream().read() != turn) {
                throw new IOException("another byte came back");
            }
        }
    }

    interface Close {
        void run() throws IOException;
    }

    static void expect(Class<? extends Exception> kind, Callable<Integer> read, Close close) throws Exception {
        CountDownLatch started = new CountDownLatch(1);
        Throwable[] thrown = new Throwable[1];
        Thread reader = new Thread(() -> {
            started.countDown();
            try {
                read.call();
            } catch (Throwable why) {
                thrown[0] = why;
            }
        });
        reader.setDaemon(true);
        reader.start();
        started.await();
        // Most rounds find the reader inside its call; one that does not is closed before, which is as legal.
        Thread.sleep(20);
        close.run();
        reader.join(20_000);
        boolean early = thrown[0] instanceof ClosedChannelException;
        if (reader.isAlive() || !(kind.isInstance(thrown[0]) || early)) {
            throw new IllegalStateException("the reader got " + (reader.isAlive() ? "nothing" : thrown[0]) + ", not " + kind);
        }
    }
}
